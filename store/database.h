#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

struct sqlite3;

namespace fusion {

/// One connection to an SQLite file. Move-only; one thread at a time.
///
/// Every failure is a StoreError: "<file>: <what was tried>: <SQLite's words> (SQLite code 13)".
class Database {
 public:
  enum class Access {
    create,     ///< read and write, made if it does not exist; its folder must exist
    read_only,  ///< an existing file; nothing is ever written to it
    immutable,  ///< the same without locks and log: for a file that nobody writes, in a folder that cannot be written
  };
  /// ":memory:" makes a private database that ends with the connection. Waits up to kBusyMs for other connections' locks. Reads
  /// nothing yet: a file that is no database shows at the first statement.
  Database(const std::string& path, Access access);

  /// Runs statements without values, separated by semicolons.
  void execute(const char* sql);
  /// First column of the first row as a number, or as text; 0 and "" if there is no row.
  std::int64_t integer(const char* sql) const;
  std::string text(const char* sql) const;

  /// False outside a transaction, and when SQLite undid one by itself (disk full, I/O error, no memory).
  bool in_transaction() const noexcept;
  std::int64_t last_insert_id() const noexcept;
  /// Rows changed by the last INSERT, UPDATE or DELETE.
  std::int64_t changes() const noexcept;
  /// Pages it keeps in memory, in bytes.
  void cache_at_most(std::size_t bytes);
  /// How long a statement waits for another connection's lock.
  void wait_at_most(std::int64_t ms) noexcept;
  /// Moves the write-ahead log into the file and empties it, as far as readers allow; waits `busy_ms` at most for them.
  /// If the file cannot be synced, the log is kept on close.
  void checkpoint(std::int64_t busy_ms) noexcept;
  /// The last connection that closes leaves the log beside the file: whoever opens it next moves all of it anew.
  void keep_log_on_close() noexcept;

  static constexpr std::int64_t kBusyMs = 10'000;
  const std::string& path() const { return path_; }
  sqlite3* handle() const noexcept { return handle_.get(); }

 private:
  struct Close {
    void operator()(sqlite3* handle) const noexcept;
  };
  std::string path_;
  std::unique_ptr<sqlite3, Close> handle_;
};

/// A database that is only read. One in a folder that this user cannot write, without a log beside it, can only be read as an immutable
/// file, and is. Throws StoreError where it cannot be read.
Database open_to_read(const std::string& path);

/// Throws the StoreError for the connection's last failure; `doing` may be empty.
[[noreturn]] void throw_store_error(sqlite3* handle, const std::string& doing);

}  // namespace fusion
