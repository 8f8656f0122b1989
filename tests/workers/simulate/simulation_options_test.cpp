#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "workers/simulate/simulation_options.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TrialJob job(std::uint64_t seed, int attempt) {
  TrialJob job;
  job.seed = seed;
  job.attempt = attempt;
  return job;
}

TEST(SimulationOptionsTest, NamesEveryProblem) {
  SimulationOptions options;
  options.epoch_s = -1;
  options.spread = 2;
  options.crashes = 1.5;
  try {
    options.check();
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("--simulate-epoch-s: expected a number in [0, 86400], got -1"), HasSubstr("--simulate-spread"),
                                    HasSubstr("--simulate-crashes: expected a number in [0, 1], got 1.5")));
  }
}

TEST(SimulationOptionsTest, RefusesSharesWithWhichNothingWouldEnd) {
  SimulationOptions options;
  options.failures = options.oom = options.preemptions = options.crashes = 0.24;
  EXPECT_THROW(options.check(), ConfigError);
  options.crashes = 0.2;
  EXPECT_NO_THROW(options.check());
}

TEST(SimulationOptionsTest, SharesAreMet) {
  SimulationOptions options;
  options.failures = 0.1;
  options.oom = 0.05;
  options.preemptions = 0.2;
  options.crashes = 0.15;
  std::map<Outcome, int> seen;
  constexpr int kTrials = 20'000;
  for (int i = 0; i < kTrials; ++i) ++seen[fate_of(options, job(static_cast<std::uint64_t>(i), 1), 3).outcome];
  const auto share = [&](Outcome outcome) { return static_cast<double>(seen[outcome]) / kTrials; };
  EXPECT_NEAR(share(Outcome::failed), 0.1, 0.01);
  EXPECT_NEAR(share(Outcome::oom), 0.05, 0.01);
  EXPECT_NEAR(share(Outcome::preempted), 0.2, 0.015);
  EXPECT_NEAR(share(Outcome::lost), 0.15, 0.015);
  EXPECT_NEAR(share(Outcome::completed), 0.5, 0.02);
}

TEST(SimulationOptionsTest, AFateIsAFunctionOfSeedTrialAndAttempt) {
  SimulationOptions options;
  options.failures = 0.5;
  options.epoch_s = 2;
  bool retry_differs = false, seed_differs = false;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const SimulatedFate first = fate_of(options, job(seed, 1), 4), again = fate_of(options, job(seed, 1), 4);
    EXPECT_EQ(first.outcome, again.outcome);
    EXPECT_EQ(first.epoch_s, again.epoch_s);
    EXPECT_EQ(first.epochs, again.epochs);
    ASSERT_EQ(first.epoch_s.size(), 4u);
    for (const double seconds : first.epoch_s) {
      EXPECT_GE(seconds, 1.5);
      EXPECT_LE(seconds, 2.5);
    }
    if (first.outcome == Outcome::completed) {
      EXPECT_EQ(first.epochs, 4);
    } else {
      EXPECT_LT(first.epochs, 4);
    }
    EXPECT_EQ(fate_of(options, job(seed, 2), 4).epoch_s, first.epoch_s) << "the same work takes as long again";
    retry_differs = retry_differs || fate_of(options, job(seed, 2), 4).outcome != first.outcome;
    SimulationOptions other = options;
    other.seed = 1;
    seed_differs = seed_differs || fate_of(other, job(seed, 1), 4).outcome != first.outcome;
  }
  EXPECT_TRUE(retry_differs);
  EXPECT_TRUE(seed_differs);
}

}  // namespace
}  // namespace fusion
