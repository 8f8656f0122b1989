#include "workers/client/wall_time.h"

#include <gtest/gtest.h>

namespace fusion {
namespace {

using namespace std::chrono_literals;

const SteadyTime kBegin = SteadyTime{} + 1h;

TEST(WallTimeTest, WithoutALimitEverythingFits) {
  const WallTime wall({}, kBegin);
  EXPECT_FALSE(wall.fits(kBegin + 1000h, 4, 8));
  EXPECT_FALSE(wall.over(kBegin + 1000h));
}

TEST(WallTimeTest, BeforeAnythingIsKnownOnePackFitsAsLongAsThereIsTimeForAFirst) {
  const WallTime wall({600s, 60s, 20s}, kBegin);
  EXPECT_EQ(wall.fits(kBegin, 4, 8), 4);
  EXPECT_EQ(wall.fits(kBegin + 520s, 4, 8), 4);
  EXPECT_EQ(wall.fits(kBegin + 521s, 4, 8), 0);
}

TEST(WallTimeTest, WholePacksFitOnceTrialsWereSeen) {
  WallTime wall({600s, 60s, 20s}, kBegin);
  wall.note(100s);  // 125 s with the margin: four packs in 580 s
  EXPECT_EQ(wall.fits(kBegin, 4, 100), 16);
  EXPECT_EQ(wall.fits(kBegin, 4, 8), 8) << "never more than slots";
  EXPECT_EQ(wall.fits(kBegin + 455s, 4, 8), 4);
  EXPECT_EQ(wall.fits(kBegin + 456s, 4, 8), 0);
}

TEST(WallTimeTest, AnEpochFitsThatEndsBeforeTheReserve) {
  const WallTime wall({520s, 60s, 20s}, kBegin);
  EXPECT_EQ(wall.longest_epoch(kBegin)->count(), 400) << "a quarter more than it takes";
  EXPECT_EQ(wall.longest_epoch(kBegin + 510s)->count(), 0);
  EXPECT_EQ(wall.first_epoch()->count(), 48) << "so one of which nothing is known may begin with 60 s left";
  EXPECT_TRUE(wall.enough_for(400s, kBegin));
  EXPECT_FALSE(wall.enough_for(401s, kBegin));
  const WallTime endless({}, kBegin);
  EXPECT_FALSE(endless.longest_epoch(kBegin) || endless.first_epoch());
  EXPECT_TRUE(endless.enough_for(10000h, kBegin));
}

TEST(WallTimeTest, ASlowTrialCountsAtOnceAndIsForgottenSlowly) {
  WallTime wall({600s, 60s, 20s}, kBegin);
  wall.note(10s);
  wall.note(100s);
  EXPECT_EQ(wall.trial()->count(), 100);
  wall.note(20s);
  EXPECT_EQ(wall.trial()->count(), 96);
}

TEST(WallTimeTest, TheReserveIsOverBeforeTheTimeIs) {
  const WallTime wall({600s, 60s, 20s}, kBegin);
  EXPECT_FALSE(wall.over(kBegin + 579s));
  EXPECT_TRUE(wall.over(kBegin + 580s));
  EXPECT_EQ(wall.left(kBegin + 700s)->count(), 0);
  const WallTime shorter({8s, 1s, 20s}, kBegin);
  EXPECT_EQ(shorter.reserve(), 2s) << "at most a quarter";
}

}  // namespace
}  // namespace fusion
