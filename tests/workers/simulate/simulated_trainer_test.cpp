#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <deque>
#include <map>
#include <thread>

#include "tests/store/fixtures.h"
#include "workers/simulate/planted_formula.h"
#include "workers/simulate/simulated_trainer.h"

namespace fusion::testing {
namespace {

using ::testing::HasSubstr;

/// Knows nothing.
class EmptyObjective final : public SimulatedObjective {
 public:
  std::optional<double> truth(const Architecture&) const override { return std::nullopt; }
  std::optional<double> score(const Architecture&, std::uint64_t) const override { return std::nullopt; }
  std::string name() const override { return "table.db, study 1"; }
};

/// A pack of trials 1 to n of AV-MNIST's space, of which the session gets some at once and the rest when it asks.
class SimulatedTrainerTest : public ::testing::Test {
 protected:
  void train(int trials, std::size_t at_once, const SimulationOptions& options,
             std::shared_ptr<const SimulatedObjective> objective = std::make_shared<PlantedFormula>(0)) {
    for (int i = 1; i <= trials; ++i) {
      TrialJob job;
      job.trial = TrialId{i};
      job.attempt = 1;
      job.architecture = new_trial(i).architecture;
      job.seed = static_cast<std::uint64_t>(i);
      waiting_.push_back({job, cancels[i].get_token(), prunes[i].get_token()});
    }
    auto header = std::make_shared<protocol::PackHeader>();
    header->training.epochs = 3;
    header->training.evaluate_test = true;
    PackSession::Hooks hooks;
    hooks.more = [this](std::size_t room) { return take(room); };
    hooks.on_epoch = [this](const protocol::Held& what, const EpochReport& report) {
      epochs[what.trial.value].push_back(report);
      if (at_epoch) at_epoch(what.trial.value, report.epoch);
    };
    hooks.on_end = [this](TrialOutcome outcome) { ends.push_back(std::move(outcome)); };
    PackSession session(header, take(at_once), std::move(hooks));
    SimulatedTrainer(std::move(objective), options, at_once)(session);
  }
  std::vector<SessionTrial> take(std::size_t room) {
    std::vector<SessionTrial> trials;
    while (trials.size() < room && !waiting_.empty()) {
      trials.push_back(waiting_.front());
      waiting_.pop_front();
    }
    most_at_once = std::max(most_at_once, trials.size());
    return trials;
  }

  std::deque<SessionTrial> waiting_;
  std::map<std::int64_t, std::stop_source> cancels, prunes;
  std::map<std::int64_t, std::vector<EpochReport>> epochs;
  std::vector<TrialOutcome> ends;
  std::function<void(std::int64_t, int)> at_epoch;
  std::size_t most_at_once = 0;
};

TEST_F(SimulatedTrainerTest, ReportsEveryEpochAndTheObjectivesScore) {
  train(10, 4, {});
  ASSERT_EQ(ends.size(), 10u);
  EXPECT_EQ(most_at_once, 4u);
  const PlantedFormula formula(0);
  for (const TrialOutcome& end : ends) {
    const Architecture architecture = new_trial(end.trial.value).architecture;
    const auto seed = static_cast<std::uint64_t>(end.trial.value);
    ASSERT_EQ(end.outcome, Outcome::completed);
    EXPECT_EQ(end.score->dev_score, formula.score(architecture, seed));
    EXPECT_EQ(end.score->test_score, formula.test_score(architecture, seed));
    EXPECT_EQ(end.engine, "simulated");
    ASSERT_EQ(epochs[end.trial.value].size(), 3u);
    EXPECT_EQ(epochs[end.trial.value].back().dev_score, end.score->dev_score);
    EXPECT_EQ(epochs[end.trial.value].back().epoch, end.score->best_epoch);
  }
}

TEST_F(SimulatedTrainerTest, TakesAsLongAsItWasTold) {
  SimulationOptions options;
  options.epoch_s = 0.05;
  options.spread = 0;
  const auto begun = std::chrono::steady_clock::now();
  train(4, 2, options);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  EXPECT_GE(took.count(), 0.3) << "two rounds of three epochs";
  for (const TrialOutcome& end : ends) EXPECT_NEAR(end.score->train_s, 0.15, 1e-9);
}

TEST_F(SimulatedTrainerTest, WhatGoesWrongEndsWithASentence) {
  SimulationOptions options;
  options.failures = options.oom = options.preemptions = 0.3;
  train(60, 60, options);
  std::map<Outcome, std::string> sentences;
  for (const TrialOutcome& end : ends) {
    sentences[end.outcome] = end.error;
    EXPECT_EQ(end.score.has_value(), end.outcome == Outcome::completed);
    if (end.outcome != Outcome::completed) {
      EXPECT_LT(epochs[end.trial.value].size(), 3u);
    }
  }
  EXPECT_THAT(sentences[Outcome::failed], HasSubstr("simulated failure after"));
  EXPECT_THAT(sentences[Outcome::oom], HasSubstr("out of memory after"));
  EXPECT_THAT(sentences[Outcome::preempted], HasSubstr("preempted after"));
}

TEST_F(SimulatedTrainerTest, CancellingAndPruningAreHonouredAmidAnEpoch) {
  SimulationOptions options;
  options.epoch_s = 1'000;  // nobody waits for this
  std::jthread other([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    cancels[1].request_stop();
    cancels[2].request_stop();
  });
  train(2, 2, options);
  ASSERT_EQ(ends.size(), 2u);
  for (const TrialOutcome& end : ends) EXPECT_EQ(end.outcome, Outcome::cancelled);
}

TEST_F(SimulatedTrainerTest, OneThatIsPrunedHasTheScoreOfItsEpochs) {
  at_epoch = [this](std::int64_t trial, int epoch) {
    if (trial == 2 && epoch == 2) prunes[2].request_stop();
  };
  train(3, 3, {});
  ASSERT_EQ(ends.size(), 3u);
  for (const TrialOutcome& end : ends) {
    EXPECT_EQ(end.outcome, end.trial.value == 2 ? Outcome::pruned : Outcome::completed);
    if (end.trial.value != 2) continue;
    EXPECT_EQ(epochs[2].size(), 2u);
    EXPECT_EQ(end.score->dev_score, epochs[2].back().dev_score);
    EXPECT_EQ(end.score->test_score, std::nullopt);
  }
}

TEST_F(SimulatedTrainerTest, AnArchitectureThatNobodyKnowsFails) {
  train(1, 1, {}, std::make_shared<EmptyObjective>());
  ASSERT_EQ(ends.size(), 1u);
  EXPECT_EQ(ends[0].outcome, Outcome::failed);
  EXPECT_THAT(ends[0].error, HasSubstr("table.db, study 1 has no score of [["));
}

TEST_F(SimulatedTrainerTest, ACrashKillsTheProcessWithoutAWord) {
  SimulationOptions options;
  options.crashes = 0.9;
  EXPECT_EXIT(train(50, 50, options), ::testing::KilledBySignal(SIGKILL), "");
}

}  // namespace
}  // namespace fusion::testing
