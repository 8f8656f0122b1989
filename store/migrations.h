#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/clock.h"

namespace fusion {
class Database;

/// "FUSD": stands in the header of each of our files (`PRAGMA application_id`), so that another program's is never touched.
inline constexpr std::int64_t kApplicationId = 0x46555344;

/// The schema as an append-only list: the n-th step (from 1) leads from version n - 1 to n, the file's `user_version`. Steps that
/// were ever released never change; tests/golden/schema keeps a database of every version.
std::span<const std::string_view> migrations();
inline std::int64_t newest_schema() { return static_cast<std::int64_t>(migrations().size()); }

/// Reads the file's version: 0 for an empty file. Throws StoreError for a file that is no database, is another program's, or
/// has a newer schema than this program. Changes nothing.
std::int64_t check_schema(const Database& database);

/// Brings the file to the newest version, each step in a transaction of its own. `now` is noted in table meta.
void migrate(Database& database, UnixMs now);

}  // namespace fusion
