#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fusion {

/// What stands in a job script for a command with these arguments: "'/opt/fusion-worker' '--device' 'cuda:0'", each quoted for a shell where that
/// is needed.
std::string shell_words(const std::vector<std::string>& words);

/// The script of a pool that names none. `exec`, so that Slurm's signals reach the worker and no shell.
inline constexpr std::string_view kDefaultJobTemplate = "#!/bin/bash\n{{prologue}}\nexec {{run}}\n";

/// The template with `{{run}}` and `{{prologue}}` replaced. Throws ConfigError, with every problem and beginning with `source`: a variable that
/// is not known, one that does not end, no `{{run}}`, a prologue that no `{{prologue}}` takes, no `#!` in the first line.
std::string job_script(std::string_view source, std::string_view text, const std::string& run, const std::string& prologue);

}  // namespace fusion
