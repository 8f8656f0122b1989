#include "workers/dispatch/epoch_times.h"

#include <gtest/gtest.h>

namespace fusion {
namespace {

RetrainingEpoch epoch(int number, int phase, double seconds) { return {number, phase, 0.5, 0.5, 0.5, 1e-3, seconds, 100}; }

RetrainingOptions two_of_phase_one() {
  RetrainingOptions options;
  options.fusion_epochs = 2;
  return options;
}

TEST(EpochTimesTest, EachPhaseAndEachKindOfDeviceHasItsOwn) {
  const RetrainingOptions options = two_of_phase_one();
  EpochTimes times;
  EXPECT_FALSE(times.next("cpu", options));
  times.note("cuda:0", epoch(1, 1, 3));
  EXPECT_EQ(times.next("cuda:7", options), 3);
  EXPECT_FALSE(times.next("cpu", options)) << "a GPU says nothing of a CPU";
  times.note("cuda:0", epoch(2, 1, 3));
  EXPECT_FALSE(times.next("cuda:0", options)) << "the next one is the first of phase 2";
  times.note("cpu", epoch(3, 2, 80));
  times.note("cuda:1", epoch(4, 2, 20));
  EXPECT_EQ(times.next("cpu", options), 80);
  EXPECT_EQ(times.next("cuda:0", options), 20);
}

TEST(EpochTimesTest, OneThatWasSlowOnceBlocksNothingAndOldOnesAreForgotten) {
  const RetrainingOptions options = two_of_phase_one();
  EpochTimes times;
  for (const int number : {1, 2, 3}) times.note("cpu", epoch(number, 2, number == 2 ? 9000 : 10));
  EXPECT_EQ(times.next("cpu", options), 10) << "it was stopped, say, by a batch system";
  for (int number = 4; number < 20; ++number) times.note("cpu", epoch(number, 2, 50));
  EXPECT_EQ(times.next("cpu", options), 50);
}

TEST(EpochTimesTest, TheEpochOfACheckpointThatIsToldAgainIsNotOfTheNewDevice) {
  const RetrainingOptions options = two_of_phase_one();
  EpochTimes times;
  times.note("cpu", epoch(3, 2, 80));
  times.note("cuda:0", epoch(3, 2, 80));
  EXPECT_FALSE(times.next("cuda:0", options));
}

}  // namespace
}  // namespace fusion
