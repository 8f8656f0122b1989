#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>

namespace fusion {

enum class TapType : std::uint8_t;

// The subcommands of fusion-data. Each adds itself with its options; what it does happens in its callback, which throws
// fusion::Error for bad input. Defined in tools/data_<name>.cpp.
void add_avmnist_command(CLI::App& app);
void add_toy_command(CLI::App& app);
void add_train_backbones_command(CLI::App& app);
void add_extract_command(CLI::App& app);
void add_import_command(CLI::App& app);
void add_info_command(CLI::App& app);
void add_inspect_command(CLI::App& app);

/// --dtype f32|bf16: how taps are stored.
void add_dtype_option(CLI::App& command, TapType& type);

}  // namespace fusion
