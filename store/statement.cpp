#include "store/statement.h"

#include <sqlite3.h>

#include <cctype>
#include <limits>
#include <stdexcept>
#include <utility>

#include "base/error.h"
#include "store/database.h"

namespace fusion {
namespace {

sqlite3_stmt* prepare(sqlite3* handle, const char* begin, const char* end, const char** tail) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v3(handle, begin, static_cast<int>(end - begin), SQLITE_PREPARE_PERSISTENT, &statement, tail) !=
      SQLITE_OK) {
    throw_store_error(handle, "");
  }
  return statement;
}

}  // namespace

void Statement::Finalize::operator()(sqlite3_stmt* statement) const noexcept { sqlite3_finalize(statement); }

Statement::Statement(const Database& database, std::string_view sql) {
  if (sql.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw StoreError(database.path() + ": a statement of " + std::to_string(sql.size()) + " bytes is too long");
  }
  const char* end = sql.data() + sql.size();
  const char* tail = sql.data();
  // What is only blanks or a comment prepares to nothing.
  while (tail != end) {
    const char* begin = tail;
    std::unique_ptr<sqlite3_stmt, Finalize> next(prepare(database.handle(), begin, end, &tail));
    if (!next && tail == begin) break;
    if (!next) continue;
    if (statement_) {
      while (begin != end && std::isspace(static_cast<unsigned char>(*begin))) ++begin;
      throw StoreError(database.path() + ": one statement was expected, and a second one follows: " +
                       std::string(begin, end).substr(0, 60));
    }
    statement_ = std::move(next);
  }
  if (!statement_) throw StoreError(database.path() + ": one SQL statement was expected, got none");
}

bool Statement::step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  throw_store_error(sqlite3_db_handle(statement_.get()), "");
}

void Statement::run() {
  while (step()) {
  }
}

void Statement::reset() noexcept {
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
}

bool Statement::is_null(int column) const noexcept { return column_type(column) == SQLITE_NULL; }

std::int64_t Statement::integer(int column) const noexcept { return sqlite3_column_int64(statement_.get(), column); }

double Statement::number(int column) const noexcept {
  if (is_null(column)) return std::numeric_limits<double>::quiet_NaN();
  return sqlite3_column_double(statement_.get(), column);
}

std::optional<double> Statement::optional_number(int column) const noexcept {
  if (is_null(column)) return std::nullopt;
  return sqlite3_column_double(statement_.get(), column);
}

std::string Statement::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
  if (text == nullptr) return "";
  return std::string(text, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column)));
}

std::string Statement::blob(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_.get(), column));
  if (bytes == nullptr) return "";
  return std::string(bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column)));
}

int Statement::column_count() const noexcept { return sqlite3_column_count(statement_.get()); }

std::string Statement::column_name(int column) const {
  const char* name = sqlite3_column_name(statement_.get(), column);
  return name != nullptr ? name : "";
}

int Statement::column_type(int column) const noexcept { return sqlite3_column_type(statement_.get(), column); }

bool Statement::is_read_only() const noexcept { return sqlite3_stmt_readonly(statement_.get()) != 0; }

bool Statement::is_busy() const noexcept { return sqlite3_stmt_busy(statement_.get()) != 0; }

void Statement::bind_integer(int index, std::int64_t value) {
  if (sqlite3_bind_int64(statement_.get(), index, value) != SQLITE_OK) {
    throw_store_error(sqlite3_db_handle(statement_.get()), "value " + std::to_string(index));
  }
}

void Statement::bind_number(int index, double value) {
  if (sqlite3_bind_double(statement_.get(), index, value) != SQLITE_OK) {
    throw_store_error(sqlite3_db_handle(statement_.get()), "value " + std::to_string(index));
  }
}

void Statement::bind_text(int index, std::string_view value) {
  if (sqlite3_bind_text64(statement_.get(), index, value.data() != nullptr ? value.data() : "", value.size(),
                          SQLITE_TRANSIENT, SQLITE_UTF8) != SQLITE_OK) {
    throw_store_error(sqlite3_db_handle(statement_.get()), "value " + std::to_string(index));
  }
}

void Statement::bind_null(int index) {
  if (sqlite3_bind_null(statement_.get(), index) != SQLITE_OK) {
    throw_store_error(sqlite3_db_handle(statement_.get()), "value " + std::to_string(index));
  }
}

void Statement::fail_choice(int column, const std::string& got, const std::string& allowed) const {
  const char* file = sqlite3_db_filename(sqlite3_db_handle(statement_.get()), "main");
  throw StoreError(std::string(file != nullptr ? file : "") + ": column " + column_name(column) + " holds \"" + got +
                   "\", and one of " + allowed + " was expected");
}

StatementCache::Loan StatementCache::use(std::string_view sql) {
  auto found = statements_.find(sql);
  if (found == statements_.end()) {
    found = statements_.emplace(std::string(sql), Statement(*database_, sql)).first;
  }
  if (found->second.is_busy()) throw std::logic_error("a prepared statement is used twice at once: " + found->first);
  return Loan(&found->second);
}

}  // namespace fusion
