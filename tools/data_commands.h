#pragma once

#include <CLI/CLI.hpp>

namespace fusion {

// The subcommands of fusion-data. Each adds itself with its options; what it does happens in its callback, which throws
// fusion::Error for bad input. Defined in tools/data_<name>.cpp.
void add_avmnist_command(CLI::App& app);
void add_toy_command(CLI::App& app);
void add_train_backbones_command(CLI::App& app);
void add_extract_command(CLI::App& app);
void add_import_command(CLI::App& app);
void add_info_command(CLI::App& app);

}  // namespace fusion
