#include "store/backup.h"

#include <sqlite3.h>

#include <filesystem>
#include <memory>
#include <vector>

#include "base/error.h"
#include "store/database.h"
#include "store/migrations.h"
#include "store/statement.h"
#include "store/transaction.h"

namespace fusion {

namespace {

// 1 MB: progress is told some hundred times a second on a fast disk.
constexpr int kPagesPerStep = 256;

struct Finish {
  void operator()(sqlite3_backup* backup) const noexcept { sqlite3_backup_finish(backup); }
};

// The open transaction keeps the snapshot over all steps; without it, SQLite begins again whenever the writer has committed.
void copy_pages(Database& from, Database& to, const BackupProgress& progress) {
  const Transaction snapshot(from, Transaction::Kind::read);
  check_schema(from);
  const std::unique_ptr<sqlite3_backup, Finish> backup(sqlite3_backup_init(to.handle(), "main", from.handle(), "main"));
  if (!backup) throw_store_error(to.handle(), "backup");
  for (int code = SQLITE_OK; code != SQLITE_DONE;) {
    code = sqlite3_backup_step(backup.get(), kPagesPerStep);
    if (code != SQLITE_OK && code != SQLITE_DONE) {
      throw StoreError(to.path() + ": the copy cannot be written: " + sqlite3_errstr(code) + " (SQLite code " + std::to_string(code) + ")");
    }
    const std::int64_t pages = sqlite3_backup_pagecount(backup.get());
    if (progress) progress(pages - sqlite3_backup_remaining(backup.get()), pages);
  }
}

void remove_with_companions(const std::string& path) {
  std::error_code ignored;
  for (const char* companion : {"", "-journal", "-wal", "-shm"}) std::filesystem::remove(path + companion, ignored);
}

std::vector<std::string> problems_of(const Database& database) {
  std::vector<std::string> problems;
  Statement integrity(database, "PRAGMA integrity_check(10)");
  while (integrity.step()) {
    if (const std::string found = integrity.text(0); found != "ok") problems.push_back(database.path() + ": damaged: " + found);
  }
  Statement references(database, "PRAGMA foreign_key_check");
  while (references.step() && problems.size() < 10) {
    problems.push_back(database.path() + ": damaged: row " + references.text(1) + " of table " + references.text(0) +
                       " refers to a row of table " + references.text(2) + " that is not there");
  }
  return problems;
}

}  // namespace

void copy_database(const std::string& source, const std::string& target, const BackupProgress& progress) {
  Database from = open_to_read(source);
  check_schema(from);
  remove_with_companions(target);
  try {
    {
      Database to(target, Database::Access::create);
      to.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF");  // half a copy is removed, not rolled back
      copy_pages(from, to, progress);
    }
    // Pages came as they are, with the mark of a write-ahead log. This takes it away, and syncs the whole file.
    Database copied(target, Database::Access::create);
    copied.execute("PRAGMA synchronous = EXTRA; PRAGMA journal_mode = DELETE");
  } catch (...) {
    remove_with_companions(target);
    throw;
  }
}

DatabaseFacts verify_database(const std::string& path) {
  const Database database = open_to_read(path);
  DatabaseFacts facts;
  facts.schema = check_schema(database);
  std::string all;
  for (const std::string& problem : problems_of(database)) all += (all.empty() ? "" : "\n") + problem;
  if (!all.empty()) throw StoreError(all);
  facts.bytes = database.integer("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size");
  facts.studies = database.integer("SELECT count(*) FROM studies");
  facts.trials = database.integer("SELECT count(*) FROM trials");
  facts.retrainings = facts.schema >= 3 ? database.integer("SELECT count(*) FROM retrainings") : 0;
  return facts;
}

}  // namespace fusion
