#include "workers/dispatch/lease_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fusion {
namespace {

using protocol::Held;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

Held held(int trial, int attempt = 1) { return {TrialId{trial}, attempt}; }

std::vector<Held> names(const std::vector<Lease>& leases) {
  std::vector<Held> list;
  for (const Lease& lease : leases) list.push_back(lease.what);
  return list;
}

struct LeaseTableTest : ::testing::Test {
  ManualClock clock;
  LeaseTable table{clock, seconds(10)};
};

TEST_F(LeaseTableTest, ALeaseRunsOutUnlessItIsExtended) {
  table.grant(held(1), "a");
  table.grant(held(2), "a");
  clock.advance(seconds(9));
  EXPECT_THAT(table.take_expired(), IsEmpty());
  EXPECT_TRUE(table.extend(held(1), "a"));
  clock.advance(seconds(1));
  EXPECT_THAT(names(table.take_expired()), ElementsAre(held(2)));
  EXPECT_EQ(table.count("a"), 1u);
  clock.advance(seconds(9));
  EXPECT_THAT(names(table.take_expired()), ElementsAre(held(1)));
  EXPECT_EQ(table.size(), 0u);
  EXPECT_FALSE(table.extend(held(1), "a"));
}

TEST_F(LeaseTableTest, OnlyTheHolderMayExtendOrRelease) {
  table.grant(held(1), "a");
  EXPECT_FALSE(table.extend(held(1), "b"));
  EXPECT_FALSE(table.release(held(1), "b").has_value());
  EXPECT_FALSE(table.release(held(1, 2), "a").has_value());
  ASSERT_TRUE(table.release(held(1), "a").has_value());
  EXPECT_FALSE(table.release(held(1), "a").has_value());
  EXPECT_THAT(table.of_worker("a"), IsEmpty());
}

TEST_F(LeaseTableTest, AHeartbeatShowsWhatIsLost) {
  table.grant(held(1), "a");
  table.grant(held(2), "a");
  table.grant(held(3), "b");
  table.extend(held(1), "a");
  const std::vector<Held> nothing;
  EXPECT_THAT(names(table.take_unnamed("a", nothing)), ElementsAre(held(1))) << "2 may still be on its way";
  EXPECT_THAT(names(table.take_unnamed("a", nothing)), ElementsAre(held(2)));
  EXPECT_THAT(table.of_worker("b"), ElementsAre(held(3)));
}

TEST_F(LeaseTableTest, BeingNamedForgivesAMiss) {
  table.grant(held(1), "a");
  const std::vector<Held> nothing, one{held(1)};
  EXPECT_THAT(table.take_unnamed("a", nothing), IsEmpty());
  table.extend(held(1), "a");
  EXPECT_THAT(table.take_unnamed("a", one), IsEmpty());
  EXPECT_THAT(names(table.take_unnamed("a", nothing)), ElementsAre(held(1)));
}

TEST_F(LeaseTableTest, KnowsTheLeasesOfATrialAndDoomsEachOnce) {
  table.grant(held(1, 1), "a");
  table.grant(held(1, 2), "b");
  table.grant(held(2, 1), "b");
  EXPECT_THAT(names(table.of_trial(TrialId{1})), ElementsAre(held(1, 1), held(1, 2)));
  EXPECT_TRUE(table.doom(held(1, 2)));
  EXPECT_FALSE(table.doom(held(1, 2)));
  EXPECT_FALSE(table.doom(held(9)));
  EXPECT_TRUE(table.find(held(1, 2))->doomed);
  EXPECT_FALSE(table.find(held(1, 1))->doomed);
}

TEST_F(LeaseTableTest, WhatIsRestoredLastsAWholeLengthAgain) {
  table.grant(held(1), "a", true);
  clock.advance(seconds(9));
  table.restore(*table.release(held(1), "a"));
  clock.advance(seconds(9));
  EXPECT_THAT(table.take_expired(), IsEmpty());
  EXPECT_TRUE(table.find(held(1))->named);
}

}  // namespace
}  // namespace fusion
