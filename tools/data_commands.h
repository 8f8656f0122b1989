#pragma once

#include <CLI/CLI.hpp>

namespace fusion {
void add_avmnist_command(CLI::App& app);
}
