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
