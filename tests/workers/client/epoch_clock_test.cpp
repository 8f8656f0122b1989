#include "workers/client/epoch_clock.h"

#include <gtest/gtest.h>

namespace fusion {
namespace {

using namespace std::chrono_literals;

const SteadyTime kBegin = SteadyTime{} + 1h;

RetrainingEpoch epoch(int number, int phase, double seconds) { return {number, phase, 0.5, 0.5, 0.5, 1e-3, seconds, 100}; }
RetrainingProgress progress(std::int64_t rows, double rows_per_s) { return {1, 71, rows, 1000, rows_per_s, 0}; }

RetrainingOptions two_of_phase_one() {
  RetrainingOptions options;
  options.fusion_epochs = 2;
  return options;
}

TEST(EpochClockTest, KnowsNothingAtFirstThenTheLastEpochWithItsCheckpoint) {
  EpochClock clock(two_of_phase_one(), kBegin);
  EXPECT_FALSE(clock.epoch());
  EXPECT_FALSE(clock.rest(kBegin));
  clock.note(epoch(1, 1, 10), kBegin + 100s);
  EXPECT_EQ(clock.epoch()->count(), 10) << "the rest was setting up";
  EXPECT_EQ(clock.rest(kBegin + 104s)->count(), 6);
  EXPECT_EQ(clock.rest(kBegin + 150s)->count(), 0);
}

TEST(EpochClockTest, AnEpochOfTheOtherPhaseSaysNothing) {
  EpochClock clock(two_of_phase_one(), kBegin);
  clock.note(epoch(2, 1, 10), kBegin + 10s);
  EXPECT_FALSE(clock.epoch()) << "the next one is the first of phase 2";
  clock.note(epoch(3, 2, 300), kBegin + 330s);
  EXPECT_EQ(clock.epoch()->count(), 320) << "from report to report";
}

TEST(EpochClockTest, BehindTheLastOneThereIsNoOther) {
  RetrainingOptions options = two_of_phase_one();
  options.epochs = 3;
  EpochClock clock(options, kBegin);
  EXPECT_TRUE(clock.another());
  clock.note(epoch(3, 2, 10), kBegin);
  EXPECT_TRUE(clock.another());
  clock.note(epoch(4, 2, 10), kBegin + 10s);
  EXPECT_FALSE(clock.another());
}

TEST(EpochClockTest, ThePaceCountsOnceATenthIsDone) {
  EpochClock clock(two_of_phase_one(), kBegin);
  clock.note(progress(20, 1));
  EXPECT_FALSE(clock.epoch()) << "the first batches are slow";
  clock.note(progress(100, 50));
  EXPECT_EQ(clock.epoch()->count(), 20);
  clock.note(epoch(1, 1, 30), kBegin + 30s);
  EXPECT_EQ(clock.epoch()->count(), 30) << "with evaluation";
  clock.note(progress(500, 10));
  EXPECT_EQ(clock.epoch()->count(), 100) << "this one is slower";
  EXPECT_EQ(clock.rest(kBegin + 80s)->count(), 50);
}

}  // namespace
}  // namespace fusion
