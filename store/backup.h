#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace fusion {

/// So many pages of so many are copied. Called from within the copying, on its thread.
using BackupProgress = std::function<void(std::int64_t done, std::int64_t pages)>;

/// Copies a database as it is at this moment into the new file `target`, beside a daemon that goes on writing: read-only, one snapshot,
/// never in the writer's way (its log is kept until the copy is done, and grows by what is written meanwhile). A file that lies there is
/// replaced. The copy is one file, without a log beside it, and on disk when this returns.
///
/// Any thread. Throws StoreError: no such file, not a database of ours, a disk that is full; what was written of the copy is removed then.
void copy_database(const std::string& source, const std::string& target, const BackupProgress& progress = {});

/// What a database holds, for people who want to know that they have the right one.
struct DatabaseFacts {
  std::int64_t bytes = 0, schema = 0, studies = 0, trials = 0, retrainings = 0;
};

/// Reads every page of a database of ours (`integrity_check`, `foreign_key_check`). Throws StoreError with what is wrong, up to the tenth
/// problem, each a line.
DatabaseFacts verify_database(const std::string& path);

}  // namespace fusion
