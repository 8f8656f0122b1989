// The failing disk itself, with a table of one's own.
#include "tests/faults/fault_vfs.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "store/database.h"
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

TEST_F(FaultVfsTest, FilesThatAreNotWatchedAreLeftAlone) {
  const TemporaryFolder other;
  Database database((other / "a.db").string(), Database::Access::create);
  database.execute("CREATE TABLE numbers (n)");
  EXPECT_TRUE(disk.after_power_loss(1, 1).files.empty());
}

}  // namespace
}  // namespace fusion::testing
