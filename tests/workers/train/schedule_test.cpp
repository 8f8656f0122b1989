#include "workers/train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace fusion {
namespace {

std::vector<int> restarts(CosineSchedule schedule, int steps) {
  std::vector<int> after;
  for (int step = 0; step < steps; ++step) {
    schedule.next();
    if (schedule.restarted()) after.push_back(step);
  }
  return after;
}

CosineSchedule::Options options(RestartRule rule) {
  CosineSchedule::Options chosen;
  chosen.rule = rule;
  return chosen;
}

TEST(CosineScheduleTest, StartsEveryCycleAtItsMaximum) {
  for (const RestartRule rule : {RestartRule::repaired, RestartRule::reference}) {
    CosineSchedule schedule(options(rule), 7);
    bool first_of_cycle = true;
    for (int step = 0; step < 60; ++step) {
      const double rate = schedule.next();
      EXPECT_TRUE(!first_of_cycle || std::abs(rate - 1e-3) < 1e-18) << step;
      EXPECT_GE(rate, 1e-6 - 1e-15);
      EXPECT_LE(rate, 1e-3 + 1e-15);
      first_of_cycle = schedule.restarted();
    }
  }
}

TEST(CosineScheduleTest, ReferenceSpendsOneStepAtTheMinimum) {
  EXPECT_EQ(restarts(CosineSchedule(options(RestartRule::reference), 7), 105), (std::vector<int>{7, 22, 51}));
}

TEST(CosineScheduleTest, ReferenceMissesARestartThatRepairedDoes) {
  EXPECT_EQ(restarts(CosineSchedule(options(RestartRule::reference), 1562.5), 4689), std::vector<int>{});
  EXPECT_EQ(restarts(CosineSchedule(options(RestartRule::repaired), 1562.5), 4689), (std::vector<int>{1562, 4688}));
}

TEST(CosineScheduleTest, RepairedRestartsAfterWholeEpochs) {
  TrainingOptions training;
  training.batch = 10;
  training.restart_epochs = 2;
  training.restart_factor = 3;
  EXPECT_EQ(restarts(CosineSchedule(training, 65), 7 * 8), (std::vector<int>{13, 55}));  // 7 batches an epoch; 2, then 6 epochs
}

}  // namespace
}  // namespace fusion
