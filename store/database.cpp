#include "store/database.h"

#include <sqlite3.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "store/page_cache.h"
#include "store/statement.h"

namespace fusion {
namespace {

std::string name_of_file(sqlite3* handle) {
  const char* file = sqlite3_db_filename(handle, "main");
  return file != nullptr && *file != '\0' ? file : ":memory:";
}

// SQLite only says "unable to open database file"; a person wants to know which part of the path is wrong.
std::string why_not_openable(const std::string& path, Database::Access access) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path folder = fs::absolute(path, ignored).parent_path();
  if (!fs::is_directory(folder, ignored)) return "the folder " + folder.string() + " does not exist";
  if (fs::is_directory(path, ignored)) return "it is a folder, and a file was expected";
  if (access != Database::Access::create && !fs::exists(path, ignored)) return "there is no such file";
  return "it cannot be opened; are file and folder readable and writable for this user?";
}

// A name as `file:` URI with SQLite's immutable option.
std::string immutable_uri(const std::string& path) {
  std::string uri = "file:";
  for (const char c : std::filesystem::absolute(path).string()) {
    switch (c) {
      case '%': uri += "%25"; break;
      case '?': uri += "%3f"; break;
      case '#': uri += "%23"; break;
      default: uri += c;
    }
  }
  return uri + "?immutable=1";
}

}  // namespace

void throw_store_error(sqlite3* handle, const std::string& doing) {
  const int code = sqlite3_extended_errcode(handle);
  throw StoreError(name_of_file(handle) + ": " + (doing.empty() ? "" : doing + ": ") + sqlite3_errmsg(handle) +
                   " (SQLite code " + std::to_string(code) + ")");
}

void Database::Close::operator()(sqlite3* handle) const noexcept { sqlite3_close_v2(handle); }

Database::Database(const std::string& path, Access access) : path_(path) {
  const bool immutable = access == Access::immutable;
  const int flags = (access == Access::create ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY) |
                    (immutable ? SQLITE_OPEN_URI : 0) | SQLITE_OPEN_NOMUTEX;
  const std::string name = immutable ? immutable_uri(path) : path;
  use_page_cache();
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(name.c_str(), &handle, flags, nullptr);
  handle_.reset(handle);
  if (code == SQLITE_CANTOPEN) throw StoreError(path + ": " + why_not_openable(path, access));
  if (code != SQLITE_OK) {
    throw StoreError(path + ": cannot be opened: " + (handle ? sqlite3_errmsg(handle) : sqlite3_errstr(code)));
  }
  if (access == Access::create && sqlite3_db_readonly(handle, "main") == 1) {
    throw StoreError(path + ": it cannot be written; is the file write-protected, or its file system mounted read-only?");
  }
  sqlite3_extended_result_codes(handle, 1);
  wait_at_most(kBusyMs);
}

void Database::execute(const char* sql) {
  if (sqlite3_exec(handle(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) throw_store_error(handle(), "");
}

std::int64_t Database::integer(const char* sql) const {
  Statement statement(*this, sql);
  return statement.step() ? statement.integer(0) : 0;
}

std::string Database::text(const char* sql) const {
  Statement statement(*this, sql);
  return statement.step() ? statement.text(0) : "";
}

bool Database::in_transaction() const noexcept { return sqlite3_get_autocommit(handle()) == 0; }

std::int64_t Database::last_insert_id() const noexcept { return sqlite3_last_insert_rowid(handle()); }

std::int64_t Database::changes() const noexcept { return sqlite3_changes64(handle()); }

void Database::cache_at_most(std::size_t bytes) { execute(("PRAGMA cache_size = -" + std::to_string(bytes >> 10)).c_str()); }

void Database::wait_at_most(std::int64_t ms) noexcept {
  sqlite3_busy_timeout(handle(), static_cast<int>(std::clamp<std::int64_t>(ms, 0, kBusyMs)));
}

void Database::checkpoint(std::int64_t busy_ms) noexcept {
  wait_at_most(busy_ms);
  const int code = sqlite3_wal_checkpoint_v2(handle(), nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
  if (code == SQLITE_IOERR_FSYNC) keep_log_on_close();
  wait_at_most(kBusyMs);
}

void Database::keep_log_on_close() noexcept { sqlite3_db_config(handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr); }

Database open_to_read(const std::string& path) {
  namespace fs = std::filesystem;
  Database database(path, Database::Access::read_only);
  try {
    database.integer("SELECT count(*) FROM sqlite_schema");
    return database;
  } catch (const StoreError&) {
    std::error_code ignored;
    const int code = sqlite3_errcode(database.handle());
    if ((code != SQLITE_CANTOPEN && code != SQLITE_READONLY) || fs::exists(path + "-wal", ignored)) throw;
  }
  return Database(path, Database::Access::immutable);
}

}  // namespace fusion
