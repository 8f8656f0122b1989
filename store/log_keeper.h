#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

struct sqlite3;

namespace fusion {
class Database;
class JsonReader;
class ReaderGate;

/// When the write-ahead log is moved into the file. Pages of 4096 bytes: 256 are a megabyte.
struct LogLimits {
  std::int64_t checkpoint_pages = 8192;  ///< about every 32 MB. Shorter: less to read on a start after a crash, more to write
  std::int64_t longest_pages = 16'384;   ///< 64 MB: beyond it, readers are asked to pause for a moment (store/reader_gate.h)

  /// `checkpoint_mb` and `longest_mb` over `base`; finishes the reader.
  static LogLimits read(JsonReader& reader, LogLimits base);
  nlohmann::json to_json() const;
};

/// Keeps the write-ahead log of the one writing connection short. Checkpoints are made between transactions, after the answers of the last
/// one went out; SQLite's own, which are part of a commit, are off. One that readers keep from its end is tried again a quarter later.
///
/// What SQLite has moved it does not move again. So once a sync of the file failed, after which the system may have dropped what was written,
/// no more is moved, nor at the end: the log stays beside the file, whole, and the next start, which knows nothing of what was moved, moves
/// all of it. (If a program has the file open from before until after that start, that is not so.)
///
/// Lives on the store thread with its connection, which must outlive it.
class LogKeeper {
 public:
  LogKeeper(Database& database, LogLimits limits);
  ~LogKeeper();
  LogKeeper(const LogKeeper&) = delete;
  LogKeeper& operator=(const LogKeeper&) = delete;

  /// Who is asked to pause; it must outlive this. Without one nobody is, and readers can make the log as long as they like.
  void ask(ReaderGate* gate) { gate_ = gate; }
  /// Outside of transactions only. Never throws: a checkpoint that fails leaves everything in the log, where it is safe, and is tried again.
  void tend() noexcept;
  std::int64_t pages() const { return pages_; }  ///< in the log after the last commit
  bool untrusted() const { return untrusted_; }  ///< a sync failed

 private:
  static int committed(void* self, sqlite3* handle, const char* schema, int pages);
  void checkpoint() noexcept;

  Database& database_;
  LogLimits limits_;
  ReaderGate* gate_ = nullptr;
  std::int64_t pages_ = 0, next_checkpoint_, next_pause_;
  bool untrusted_ = false;
};

}  // namespace fusion
