#pragma once

#include "tools/ctl/commands.h"

namespace fusion::ctl {

/// Adds `simulate` to the program: studies against known scores, in this process (tools/ctl/dry_run.h); asks no daemon.
void add_simulate_command(CLI::App& app, Context& context);

}  // namespace fusion::ctl
