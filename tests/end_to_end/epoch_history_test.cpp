#include "tools/epoch_history.h"

#include <gtest/gtest.h>

#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

/// An epoch of phase 2 that took so long.
RetrainingEpoch epoch(int number, double seconds) {
  RetrainingEpoch done = testing::retraining_epoch(number);
  done.phase = 2;
  done.seconds = seconds;
  return done;
}

TEST(EpochHistoryTest, KnowsWhatEpochsTookAndWhereAfterADaemonEnded) {
  const testing::TemporaryFolder folder;
  const std::string database = (folder / "fusion.db").string();
  ManualClock clock;
  NewRetraining given = testing::new_retraining();
  given.options.fusion_epochs = 0;
  RetrainingId open, none, over;
  {
    Store store = Store::open(database, clock);
    const WorkerId cpu = store.join_worker({{}, "a", "node", "cpu", "0.1.0", "1.13.0", 1, 1});
    const WorkerId gpu = store.join_worker({{}, "b", "node", "cuda:1", "0.1.0", "1.13.0", 1, 1});
    open = store.create_retraining(given).id;
    none = store.create_retraining(given).id;
    over = store.create_retraining(given).id;
    store.lease_retraining(open, cpu);
    store.add_retraining_epoch(open, 1, epoch(1, 80));
    store.finish_retraining(testing::retraining_ended(open, 1, Outcome::lost));
    store.lease_retraining(open, gpu);
    store.add_retraining_epoch(open, 2, epoch(1, 80));  // of the checkpoint that it found
    store.add_retraining_epoch(open, 2, epoch(2, 5));
    store.lease_retraining(over, cpu);
    store.add_retraining_epoch(over, 1, epoch(1, 7));
    store.finish_retraining(testing::retrained(over, 1, 0.5));
  }
  const std::map<RetrainingId, EpochTimes> times = epoch_history(database);
  ASSERT_TRUE(times.contains(open));
  EXPECT_EQ(times.at(open).next("cpu", given.options), 80);
  EXPECT_EQ(times.at(open).next("cuda:0", given.options), 5);
  EXPECT_FALSE(times.contains(none));
  EXPECT_FALSE(times.contains(over)) << "it is final";
}

/// A retraining on a CPU that has gone through `epochs` epochs, the n-th of n seconds.
RetrainingId retraining_of_epochs(const std::string& database, int epochs) {
  ManualClock clock;
  Store store = Store::open(database, clock);
  const WorkerId cpu = store.join_worker({{}, "a", "node", "cpu", "0.1.0", "1.13.0", 1, 1});
  const RetrainingId id = store.create_retraining(testing::new_retraining()).id;
  store.lease_retraining(id, cpu);
  store.begin_group();
  for (int n = 1; n <= epochs; ++n) store.add_retraining_epoch(id, 1, epoch(n, n));
  store.commit_group();
  return id;
}

TEST(EpochHistoryTest, ReadsTheLastEpochsOfALongRetrainingOnly) {
  const testing::TemporaryFolder folder;
  const std::string database = (folder / "fusion.db").string();
  const RetrainingId id = retraining_of_epochs(database, 500);
  RetrainingOptions options;
  options.fusion_epochs = 0;
  EXPECT_EQ(epoch_history(database).at(id).next("cpu", options), 496) << "the median of 492 to 500";
}

TEST(EpochHistoryTest, WhatCannotBeReadIsNotKnownAndEndsNothing) {
  const testing::TemporaryFolder folder;
  const std::string database = (folder / "fusion.db").string();
  retraining_of_epochs(database, 500);
  EXPECT_FALSE(epoch_history(database).empty());
  EXPECT_TRUE(epoch_history(database, std::chrono::milliseconds(0)).empty()) << "its deadline passes before the first row";
  EXPECT_TRUE(epoch_history((folder / "missing.db").string()).empty());
}

}  // namespace
}  // namespace fusion
