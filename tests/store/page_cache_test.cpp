// The layer over SQLite's page cache: what it spares, and that what is stored stays the same.
#include "store/page_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "base/random.h"
#include "store/database.h"
#include "store/statement.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

/// A table with an index in random order, as that of architectures.
class PageCacheTest : public ::testing::Test {
 protected:
  static Database open(const std::string& path) {
    Database database(path, Database::Access::create);
    database.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, value TEXT NOT NULL)");
    return database;
  }
  std::string key() { return std::to_string(rng.below(kKeys)) + std::string(40, 'k'); }
  std::string value() { return std::string(rng.below(300), static_cast<char>('a' + rng.below(26))); }
  void put(Database& database, std::map<std::string, std::string>& rows) {
    const std::string name = key();
    Statement statement(database, "INSERT INTO rows VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value");
    statement.bind(name, rows[name] = value()).run();
  }
  void erase(Database& database, std::map<std::string, std::string>& rows) {
    const std::string from = key(), to = from + std::string(1, '~');
    Statement statement(database, "DELETE FROM rows WHERE key BETWEEN ?1 AND ?2");
    statement.bind(from, to).run();
    rows.erase(rows.lower_bound(from), rows.upper_bound(to));
  }
  static std::map<std::string, std::string> read(const Database& database) {
    std::map<std::string, std::string> rows;
    Statement statement(database, "SELECT key, value FROM rows");
    while (statement.step()) rows[statement.text(0)] = statement.text(1);
    return rows;
  }

  static constexpr std::uint64_t kKeys = 4000;
  fusion::testing::TemporaryFolder folder;
  std::string path = (folder / "a.db").string();
  Rng rng{17};
};

TEST_F(PageCacheTest, NoCommitLooksAtEveryPage) {
  ASSERT_TRUE(use_page_cache());
  Database database = open(path);
  std::map<std::string, std::string> rows;
  const PageCacheFigures before = page_cache_figures();
  for (int group = 0; group < 200; ++group) {
    database.execute("BEGIN IMMEDIATE");
    for (int i = 0; i < 20; ++i) put(database, rows);
    database.execute("COMMIT");
  }
  const PageCacheFigures after = page_cache_figures();
  EXPECT_GT(after.detours, before.detours) << "this SQLite balances otherwise: the layer is for nothing";
  EXPECT_EQ(after.walks, before.walks);
}

TEST_F(PageCacheTest, PagesBehindTheEndAreDroppedWhenATransactionIsUndone) {
  Database database = open(path);
  std::map<std::string, std::string> rows, undone;
  for (int i = 0; i < 50; ++i) put(database, rows);
  const PageCacheFigures before = page_cache_figures();
  database.execute("BEGIN IMMEDIATE");
  for (int i = 0; i < 2000; ++i) put(database, undone);
  database.execute("ROLLBACK");
  EXPECT_GT(page_cache_figures().walks, before.walks);
  EXPECT_EQ(read(database), rows);
}

TEST_F(PageCacheTest, WhatIsStoredIsWhatWasWrittenWhateverHappensToThePages) {
  Database database = open(path), other = open(path);
  database.cache_at_most(64u << 10);  // so that pages are thrown out all the time, within transactions too
  std::map<std::string, std::string> rows;
  for (int group = 0; group < 300; ++group) {
    Database& writer = rng.below(4) == 0 ? other : database;
    std::map<std::string, std::string> changed = rows;
    writer.execute("BEGIN IMMEDIATE");
    for (std::uint64_t i = rng.below(120); i > 0; --i) {
      if (rng.below(10) == 0) {
        erase(writer, changed);
      } else {
        put(writer, changed);
      }
    }
    if (rng.below(5) == 0) {
      writer.execute("ROLLBACK");
    } else {
      writer.execute("COMMIT");
      rows = std::move(changed);
    }
    if (rng.below(40) == 0) {
      writer.execute("VACUUM");
    } else if (rng.below(20) == 0) {
      writer.checkpoint(0);
    }
    if (group % 50 == 0) {
      ASSERT_EQ(read(database), rows) << "after group " << group;
    }
  }
  EXPECT_EQ(read(database), rows);
  EXPECT_EQ(database.text("PRAGMA integrity_check"), "ok");
  const Database again(path, Database::Access::read_only);
  EXPECT_EQ(read(again), rows);
}

TEST(PageBlock, GrowsWithTheReadersUntilTheyShare) {
  EXPECT_GE(page_block(0), kWriterCache);
  EXPECT_EQ(page_block(4) - page_block(0), 4 * kReaderCache);
  EXPECT_EQ(page_block(512), page_block(32));
}

}  // namespace
}  // namespace fusion
