#include "store/backup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "store/database.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using fusion::testing::add_study;
using fusion::testing::add_trials;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class BackupTest : public ::testing::Test {
 protected:
  std::vector<std::string> files() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) names.push_back(entry.path().filename().string());
    return names;
  }
  fusion::testing::TemporaryFolder folder;
  std::string path = (folder / "fusion.db").string(), copy = (folder / "copy.db").string();
  SystemClock clock;
};

TEST_F(BackupTest, IsTheDatabaseOfOneMomentThoughItsWriterGoesOn) {
  Store store = Store::open(path, clock);
  const StudyId study = add_study(store);
  add_trials(store, study, 8000);
  std::int64_t steps = 0, told = 0, written = 8000;
  copy_database(path, copy, [&](std::int64_t done, std::int64_t pages) {
    EXPECT_GT(done, told);
    told = done;
    if (++steps == 1) {
      EXPECT_LT(done, pages) << "else nothing is written between two steps";
    }
    add_trials(store, study, 500, written);
    written += 500;
  });
  EXPECT_EQ(told, Database(copy, Database::Access::read_only).integer("PRAGMA page_count"));
  EXPECT_GT(steps, 1);
  const DatabaseFacts facts = verify_database(copy);
  EXPECT_EQ(facts.trials, 8000);
  EXPECT_EQ(facts.studies, 1);
  EXPECT_EQ(facts.bytes, static_cast<std::int64_t>(std::filesystem::file_size(copy)));
  EXPECT_FALSE(std::filesystem::exists(copy + "-wal"));
  EXPECT_EQ(store.trials(study).size(), static_cast<std::size_t>(written));
}

TEST_F(BackupTest, OpensAsADatabaseThatGoesOn) {
  {
    Store store = Store::open(path, clock);
    fusion::testing::add_trials(store, add_study(store), 20);
    copy_database(path, copy);
  }
  Store restored = Store::open(copy, clock);
  EXPECT_EQ(restored.trials(StudyId{1}).size(), 20u);
  add_trials(restored, StudyId{1}, 5, 20);
  EXPECT_EQ(restored.trials(StudyId{1}).size(), 25u);
}

TEST_F(BackupTest, WhatCannotBeCopiedLeavesNothing) {
  EXPECT_THAT([&] { copy_database(path, copy); }, ThrowsMessage<StoreError>(HasSubstr("there is no such file")));
  write_atomically(path, "this is no database, although it is long enough to be taken for one at first sight, or so they say; it is not a page");
  EXPECT_THAT([&] { copy_database(path, copy); }, ThrowsMessage<StoreError>(HasSubstr("not a database")));
  std::filesystem::remove(path);
  Database(path, Database::Access::create).execute("CREATE TABLE notes (text)");
  EXPECT_THAT([&] { copy_database(path, copy); }, ThrowsMessage<StoreError>(HasSubstr("belongs to another program")));
  EXPECT_THAT(files(), ::testing::ElementsAre("fusion.db"));
}

TEST_F(BackupTest, ACopyThatIsBrokenOffIsRemoved) {
  Store store = Store::open(path, clock);
  add_study(store);
  EXPECT_THROW(copy_database(path, copy, [](std::int64_t, std::int64_t) { throw StoreError("enough"); }), StoreError);
  EXPECT_FALSE(std::filesystem::exists(copy));
}

TEST_F(BackupTest, DamageIsFound) {
  {
    Store store = Store::open(path, clock);
    add_trials(store, add_study(store), 300);
  }
  EXPECT_NO_THROW(verify_database(path));
  const auto bytes = std::filesystem::file_size(path);
  for (std::uintmax_t page = 4096; page < bytes; page += 4096) {  // whichever page it is, of a table or of an index
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(page + 1000));
    file.write("????????", 8);
  }
  EXPECT_THROW(verify_database(path), StoreError);
}

TEST_F(BackupTest, ReferencesToNothingAreFound) {
  {
    Store store = Store::open(path, clock);
    add_trials(store, add_study(store), 3);
  }
  Database(path, Database::Access::create).execute("PRAGMA foreign_keys = OFF; DELETE FROM studies");
  EXPECT_THAT([&] { verify_database(path); }, ThrowsMessage<StoreError>(HasSubstr("of table trials refers to a row of table studies that is not there")));
}

}  // namespace
}  // namespace fusion
