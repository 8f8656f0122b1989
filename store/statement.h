#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/enum_names.h"
#include "base/id.h"

struct sqlite3_stmt;

namespace fusion {
class Database;

/// One prepared SQL statement. Move-only; must not outlive its Database. Failures are StoreErrors.
class Statement {
 public:
  /// Throws StoreError with SQLite's words for bad SQL, and for none or more than one statement.
  Statement(const Database& database, std::string_view sql);

  /// Binds ?1, ?2, ... from the left: integers, numbers (NaN becomes NULL), text, ids (0 becomes NULL), enumerators (their
  /// stored name), optionals (nullopt becomes NULL). Text is copied.
  template <typename... Values>
  Statement& bind(const Values&... values) {
    int index = 0;
    (bind_one(++index, values), ...);
    return *this;
  }
  /// To the next row; false at the end.
  bool step();
  /// Runs to the end: for statements whose rows do not matter.
  void run();
  /// Ready for the next use; gives up the read lock and forgets the values.
  void reset() noexcept;

  // ---- of the row that step() found; columns count from 0
  bool is_null(int column) const noexcept;
  std::int64_t integer(int column) const noexcept;  ///< NULL is 0
  double number(int column) const noexcept;         ///< NULL is NaN
  std::optional<double> optional_number(int column) const noexcept;
  std::string text(int column) const;               ///< NULL is ""
  template <typename E>
  E choice(int column) const {
    const std::string name = text(column);
    if (const auto value = enum_from_name<E>(name)) return *value;
    fail_choice(column, name, enum_choices<E>());
  }

  int column_count() const noexcept;
  std::string column_name(int column) const;
  /// SQLITE_INTEGER, SQLITE_FLOAT, SQLITE_TEXT, SQLITE_BLOB or SQLITE_NULL.
  int column_type(int column) const noexcept;
  std::string blob(int column) const;
  bool is_read_only() const noexcept;
  bool is_busy() const noexcept;  ///< between the first step() and the end or reset()

 private:
  void bind_integer(int index, std::int64_t value);
  void bind_number(int index, double value);
  void bind_text(int index, std::string_view value);
  void bind_null(int index);
  [[noreturn]] void fail_choice(int column, const std::string& got, const std::string& allowed) const;

  template <typename V>
  void bind_one(int index, const V& value) {
    if constexpr (std::is_enum_v<V>) {
      bind_text(index, name_of(value));
    } else if constexpr (std::integral<V>) {
      bind_integer(index, static_cast<std::int64_t>(value));
    } else if constexpr (std::floating_point<V>) {
      bind_number(index, value);
    } else {
      bind_text(index, value);
    }
  }
  template <typename Tag>
  void bind_one(int index, const Id<Tag>& id) {
    id ? bind_integer(index, id.value) : bind_null(index);
  }
  template <typename V>
  void bind_one(int index, const std::optional<V>& value) {
    value ? bind_one(index, *value) : bind_null(index);
  }

  struct Finalize {
    void operator()(sqlite3_stmt* statement) const noexcept;
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

/// Statements of one connection, each prepared once and lent out by its SQL.
class StatementCache {
 public:
  struct GiveBack {
    void operator()(Statement* statement) const noexcept { statement->reset(); }
  };
  /// A statement on loan: reset when the loan ends.
  using Loan = std::unique_ptr<Statement, GiveBack>;

  explicit StatementCache(const Database& database) : database_(&database) {}
  /// Throws std::logic_error if that statement is in use further up the stack.
  Loan use(std::string_view sql);

 private:
  const Database* database_;
  std::map<std::string, Statement, std::less<>> statements_;
};

}  // namespace fusion
