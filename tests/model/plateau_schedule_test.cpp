#include "model/plateau_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace fusion {
namespace {

TEST(PlateauScheduleTest, ReducesAfterPatienceIsExceeded) {
  PlateauSchedule schedule(1e-2, {.factor = 0.1, .patience = 2});
  EXPECT_EQ(schedule.step(1.0), 1e-2);
  EXPECT_EQ(schedule.step(0.99995), 1e-2);  // within the threshold: the first bad epoch
  EXPECT_EQ(schedule.step(0.99999), 1e-2);
  EXPECT_NEAR(schedule.step(NAN), 1e-3, 1e-15);  // the third
  EXPECT_NEAR(schedule.step(0.9), 1e-3, 1e-15);
  for (int i = 0; i < 2; ++i) EXPECT_NEAR(schedule.step(0.9), 1e-3, 1e-15);
  EXPECT_NEAR(schedule.step(0.9), 1e-4, 1e-15);
}

TEST(PlateauScheduleTest, MakesNoReductionThatIsTooSmall) {
  PlateauSchedule schedule(1e-8, {.patience = 0});
  schedule.step(1.0);
  EXPECT_EQ(schedule.step(1.0), 1e-8);
  PlateauSchedule floored(1e-2, {.patience = 0, .min_rate = 5e-3});
  floored.step(1.0);
  EXPECT_EQ(floored.step(1.0), 5e-3);
}

TEST(PlateauScheduleTest, GoesOnFromItsState) {
  PlateauSchedule schedule(1e-2, {.patience = 2});
  for (const double loss : {1.0, 1.0, 1.0}) schedule.step(loss);
  PlateauSchedule resumed(1.0, {.patience = 2});
  resumed.load_state(schedule.state());
  EXPECT_EQ(resumed.step(1.0), schedule.step(1.0));
  EXPECT_NEAR(resumed.rate(), 1e-3, 1e-15);
  EXPECT_THROW(resumed.load_state({}), ModelError);
}

TEST(PlateauScheduleTest, NamesEveryProblemOfItsOptions) {
  try {
    PlateauSchedule(0, {.factor = 1, .patience = -1});
    FAIL() << "it was built";
  } catch (const ModelError& error) {
    EXPECT_THAT(error.what(), ::testing::AllOf(::testing::HasSubstr("rate: expected"), ::testing::HasSubstr("factor: expected"),
                                               ::testing::HasSubstr("patience: expected")));
  }
}

}  // namespace
}  // namespace fusion
