#pragma once

#include <string>

namespace fusion::testing {

/// What the test binary does when it is started again as another process (main.cpp). Each prints a line for every answer, after
/// the commit, straight to stdout.

/// `--writer DB`: adds, leases and finishes trials until it is killed. "added <ask_index> <id>", "scored <ask_index> <id>".
int run_writer(const std::string& database);
/// `--filling DB BYTES`: the same, with files limited to that size, until the store breaks. "added ...", "failed <ask_index>",
/// "broken <what>".
int run_filling(const std::string& database, const std::string& bytes);
/// `--sample DB`: the sample database of fixtures.h.
int run_sample(const std::string& database);

}  // namespace fusion::testing
