#pragma once

namespace fusion {
class Database;

/// Begins in the constructor, undone in the destructor unless committed. Move-only.
///
/// If SQLite has undone the transaction by itself (disk full, I/O error), the destructor does nothing and commit() throws.
class Transaction {
 public:
  enum class Kind {
    write,      ///< BEGIN IMMEDIATE: holds the one write lock from the start, so it never fails halfway for want of it
    read,       ///< BEGIN DEFERRED: one snapshot for several queries
    savepoint,  ///< part of an open transaction that can be undone alone
  };
  Transaction(Database& database, Kind kind);
  ~Transaction();
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;

  /// Throws StoreError; then the destructor still undoes.
  void commit();

 private:
  Database* database_;  ///< nullptr once committed or moved from
  Kind kind_;
};

}  // namespace fusion
