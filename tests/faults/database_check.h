#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tests/faults/witness.h"

namespace fusion::testing {

/// What is wrong with the database `fusion.db` of a folder, a sentence each: it does not open, SQLite finds damage, something that was
/// acknowledged is not in it, something is in it twice, a trial has no legal history, a study cannot be replayed. Empty: nothing.
///
/// Opens it as a daemon does, which may change it: give it a copy, or what nobody needs any more.
std::vector<std::string> check_database(const std::filesystem::path& folder, const Acknowledged& acknowledged);

}  // namespace fusion::testing
