// The failing disk itself, with a table of one's own.
#include "tests/faults/fault_vfs.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <optional>

#include "base/error.h"
#include "store/database.h"
#include "store/store.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"

namespace fusion::testing {
namespace {

class FaultVfsTest : public ::testing::Test {
 protected:
  FaultVfsTest() { disk.watch(folder.path()); }
  Database open() {
    Database database(path, Database::Access::create);
    // EXTRA first: a new database is turned to WAL with a rollback journal, whose removal FULL does not sync.
    database.execute("PRAGMA synchronous = EXTRA; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS numbers (n)");
    return database;
  }
  std::int64_t count_after_power_loss(double keep) {
    const TemporaryFolder copy;
    disk.after_power_loss(keep, 1).write_to(copy.path());
    return Database((copy / "a.db").string(), Database::Access::create).integer("SELECT count(*) FROM numbers");
  }
  FaultVfs disk;
  TemporaryFolder folder;
  std::string path = (folder / "a.db").string();
};

// This disk is there before SQLite's first use, as a daemon is: its pages come from the block.
TEST_F(FaultVfsTest, TheDaemonsPageCacheIsInUse) {
  const Database database = open();
  int pages = 0, most = 0;
  sqlite3_status(SQLITE_STATUS_PAGECACHE_USED, &pages, &most, 0);
  EXPECT_GT(pages, 0);
}

TEST_F(FaultVfsTest, WhatWasCommittedIsThereAfterAPowerLoss) {
  Database database = open();
  database.execute("INSERT INTO numbers VALUES (1), (2); INSERT INTO numbers VALUES (3)");
  EXPECT_EQ(count_after_power_loss(0), 3);
  EXPECT_EQ(count_after_power_loss(1), 3);
}

TEST_F(FaultVfsTest, WhatWasNotSyncedIsNot) {
  Database database = open();
  database.execute("INSERT INTO numbers VALUES (1)");
  database.execute("PRAGMA synchronous = OFF; INSERT INTO numbers VALUES (2)");
  EXPECT_EQ(count_after_power_loss(0), 1);
  EXPECT_EQ(count_after_power_loss(1), 2);
}

TEST_F(FaultVfsTest, StrikesTheNthOperationOnceOrFromThenOn) {
  Database database = open();
  disk.arm(FaultKind::write_error, 1);
  EXPECT_THROW(database.execute("INSERT INTO numbers VALUES (1)"), StoreError);
  EXPECT_TRUE(disk.happened());
  EXPECT_NO_THROW(database.execute("INSERT INTO numbers VALUES (1)"));
  bool told = false;
  disk.arm(FaultKind::disk_full_lasting, 1, [&told] { told = true; });
  EXPECT_THROW(database.execute("INSERT INTO numbers VALUES (2)"), StoreError);
  EXPECT_THROW(database.execute("INSERT INTO numbers VALUES (2)"), StoreError);
  EXPECT_TRUE(told);
  disk.disarm();
  EXPECT_NO_THROW(database.execute("INSERT INTO numbers VALUES (2)"));
  EXPECT_EQ(database.integer("SELECT count(*) FROM numbers"), 2);
  EXPECT_EQ(count_after_power_loss(0), 2);
}

TEST_F(FaultVfsTest, ASyncThatFailedLosesWhatItWasFor) {
  Database database = open();
  disk.arm(FaultKind::sync_error, 1);
  EXPECT_THROW(database.execute("INSERT INTO numbers VALUES (1)"), StoreError);
  EXPECT_EQ(count_after_power_loss(1), 0);
}

TEST_F(FaultVfsTest, EachDescriptorThatIsOpenLearnsOfASyncThatFailed) {
  Database one = open(), other = open();
  disk.arm(FaultKind::sync_error, 1);
  EXPECT_THROW(one.execute("INSERT INTO numbers VALUES (1)"), StoreError);
  EXPECT_THROW(other.execute("INSERT INTO numbers VALUES (2)"), StoreError) << "once";
  EXPECT_NO_THROW(other.execute("INSERT INTO numbers VALUES (3)"));
  EXPECT_NO_THROW(one.execute("INSERT INTO numbers VALUES (4)"));
  EXPECT_EQ(count_after_power_loss(0), 2);
}

/// Writes while the nth sync fails, with a log of which a part has been moved by then because a reader held up the rest. Returns false if
/// there were not so many syncs.
bool survives_a_failed_sync(FaultVfs& disk, std::int64_t nth) {
  const TemporaryFolder folder, copy;
  disk.watch(folder.path());
  const SystemClock clock;
  std::int64_t acknowledged = 0;
  {
    Store store = Store::open((folder / "fusion.db").string(), clock, {60, 1'000'000});
    const StudyId study = add_study(store);
    const auto add = [&](std::int64_t some) { acknowledged += static_cast<std::int64_t>(add_trials(store, study, some, acknowledged).size()); };
    add(5);
    add(150);  // whole pages, which nobody writes again
    std::optional<Database> reader(std::in_place, (folder / "fusion.db").string(), Database::Access::read_only);
    reader->execute("BEGIN; SELECT count(*) FROM trials");
    for (int i = 0; i < 12; ++i) add(5);
    reader.reset();
    disk.arm(FaultKind::sync_error, nth);
    try {
      for (int i = 0; i < 12 && !store.file_is_untrusted(); ++i) add(5);
    } catch (const StoreError&) {
    }
  }
  const bool happened = disk.happened();
  disk.disarm();
  disk.after_power_loss(0, 1).write_to(copy.path());
  const Database found((copy / "fusion.db").string(), Database::Access::create);
  EXPECT_EQ(found.text("PRAGMA integrity_check"), "ok") << "sync " << nth;
  EXPECT_EQ(found.integer("SELECT count(*) FROM studies"), 1) << "sync " << nth;
  EXPECT_GE(found.integer("SELECT count(*) FROM trials"), acknowledged) << "sync " << nth;
  return happened;
}

TEST_F(FaultVfsTest, ASyncThatFailsWhenAPartOfTheLogWasMovedLosesNothing) {
  std::int64_t nth = 1;
  while (survives_a_failed_sync(disk, nth)) ++nth;
  EXPECT_GT(nth, 12) << "each commit is a sync";
}

TEST_F(FaultVfsTest, FilesThatAreNotWatchedAreLeftAlone) {
  const TemporaryFolder other;
  Database database((other / "a.db").string(), Database::Access::create);
  database.execute("CREATE TABLE numbers (n)");
  EXPECT_TRUE(disk.after_power_loss(1, 1).files.empty());
}

}  // namespace
}  // namespace fusion::testing
