#include "search/mfas_strategy.h"

#include <gtest/gtest.h>

#include <set>

#include "search/expansion.h"
#include "surrogate/lstm_surrogate.h"
#include "tests/search/strategies.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::Driver;
using testing::scored_by_chance;

const json kQuick{{"name", "lstm"}, {"hidden", 8}, {"embedding", 8}, {"epochs", 3}};

SearchSpace avmnist(int max_steps = 4) { return SearchSpace::whole(testing::avmnist_spec(), max_steps); }

/// The proposals of every step, in order.
std::vector<std::vector<Proposal>> steps_of(const std::vector<Proposal>& proposals) {
  std::vector<std::vector<Proposal>> steps;
  json last;
  for (const Proposal& proposal : proposals) {
    const json key{proposal.facts.at("iteration"), proposal.facts.at("level")};
    if (steps.empty() || key != last) steps.emplace_back();
    steps.back().push_back(proposal);
    last = key;
  }
  return steps;
}

/// True if `child` is `parent` with its step number `level` replaced or appended.
bool expands(const Architecture& parent, const Architecture& child, std::size_t level) {
  const std::vector<Architecture> from{parent};
  const SearchSpace space = avmnist();
  const auto all = expand(from, space.step_choices(), level);
  return std::find(all.begin(), all.end(), child) != all.end();
}

TEST(MfasStrategyTest, TheDefaultSearchOnAvMnistHas195DifferentTrials) {
  Driver driver(testing::strategy_of({{"name", "mfas"}, {"surrogate", kQuick}}, avmnist(), 11), scored_by_chance);
  EXPECT_EQ(driver.strategy().total(), 195u);
  driver.run();
  ASSERT_EQ(driver.proposals().size(), 195u);
  std::set<Architecture> different;
  for (const Proposal& proposal : driver.proposals()) different.insert(proposal.architecture);
  EXPECT_EQ(different.size(), 195u);

  const auto steps = steps_of(driver.proposals());
  ASSERT_EQ(steps.size(), 12u);
  for (std::size_t s = 0; s < steps.size(); ++s) {
    EXPECT_EQ(steps[s].size(), s == 0 ? 30u : 15u);
    for (const Proposal& proposal : steps[s]) {
      EXPECT_EQ(proposal.architecture.steps.size(), std::min<std::size_t>(s + 1, 4));
    }
  }
  for (std::size_t i = 0; i < 30; ++i) EXPECT_EQ(steps[0][i].architecture, avmnist().at(i));
}

TEST(MfasStrategyTest, EveryStepExpandsSurvivorsOfTheOneBefore) {
  Driver driver(testing::strategy_of({{"name", "mfas"}, {"samples", 6}, {"surrogate", kQuick}}, avmnist(), 12),
                testing::sometimes_failing);
  const auto steps = steps_of(driver.run().proposals());
  ASSERT_EQ(steps.size(), 12u);
  for (std::size_t s = 1; s < steps.size(); ++s) {
    for (const Proposal& child : steps[s]) {
      bool found = false;
      for (const Proposal& parent : steps[s - 1]) {
        const bool survived =
            testing::sometimes_failing(parent.architecture, parent.replica).state == TrialState::completed;
        found = found || (survived && expands(parent.architecture, child.architecture, s % 4));
      }
      EXPECT_TRUE(found) << canonical_text(child.architecture) << " in step " << s;
    }
  }
}

TEST(MfasStrategyTest, FactsTellTheTemperatureInForceAndThePrediction) {
  Driver driver(testing::strategy_of({{"name", "mfas"}, {"samples", 2}, {"surrogate", kQuick}}, avmnist(), 13),
                scored_by_chance);
  const auto steps = steps_of(driver.run().proposals());
  const std::vector<double> expected{10,     9.4062, 7.8322, 5.7839, 3.8052, 3.8052,
                                     2.2542, 1.2329, 0.6584, 0.6584, 0.3795, 0.2620};
  EXPECT_FALSE(steps[0][0].facts.contains("prediction"));
  for (std::size_t s = 1; s < steps.size(); ++s) {
    EXPECT_NEAR(steps[s][0].facts.at("temperature").get<double>(), expected[s], 5e-5);
    EXPECT_GT(steps[s][0].facts.at("prediction").get<double>(), 0);
    EXPECT_EQ(steps[s][0].facts.at("iteration"), s / 4);
    EXPECT_EQ(steps[s][0].facts.at("level"), s % 4);
  }
}

TEST(MfasStrategyTest, EveryStepIsFittedAndItsPredictionsAreJudged) {
  Driver driver(testing::strategy_of({{"name", "mfas"}, {"surrogate", kQuick}}, avmnist(), 14), scored_by_chance);
  const auto records = driver.run().strategy().take_fit_records();
  ASSERT_EQ(records.size(), 12u);
  EXPECT_FALSE(records[0].rank_correlation);
  EXPECT_FALSE(records[0].mean_abs_error);
  for (std::size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(records[i].fit_index, static_cast<int>(i));
    EXPECT_EQ(records[i].surrogate, "lstm");
    EXPECT_EQ(records[i].observations, 30 + 15 * static_cast<std::int64_t>(i));
    EXPECT_EQ(records[i].details.at("lengths").size(), std::min<std::size_t>(i + 1, 4));
  }
  double error = 0;
  for (std::size_t i = 30; i < 45; ++i) {
    const Proposal& proposal = driver.proposals()[i];
    error += std::abs(proposal.facts.at("prediction").get<double>() - testing::noise(proposal.architecture, 0)) / 15;
  }
  EXPECT_NEAR(records[1].mean_abs_error.value(), error, 1e-12);
  EXPECT_TRUE(records[1].rank_correlation);
  EXPECT_TRUE(driver.strategy().take_fit_records().empty());
}

TEST(MfasStrategyTest, ReferenceDuplicatesTrainSomeNetworksAgain) {
  int again = 0;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const json options{{"name", "mfas"}, {"surrogate", kQuick}, {"duplicates", "reference"}};
    Driver driver(testing::strategy_of(options, avmnist(), seed), scored_by_chance);
    EXPECT_EQ(driver.run().proposals().size(), 195u);
    for (const Proposal& proposal : driver.proposals()) again += proposal.replica > 0;
  }
  EXPECT_GT(again, 0);
}

TEST(MfasStrategyTest, AStepWithoutScoresLeavesTheSurvivorsOfTheStepBefore) {
  // Everything of two steps fails; at level 2 the one-step survivors grow again.
  Driver driver(testing::strategy_of({{"name", "mfas"}, {"samples", 3}, {"surrogate", kQuick}}, avmnist(), 15),
                [](const Architecture& a, int replica) {
                  Told told = scored_by_chance(a, replica);
                  if (a.steps.size() == 2) told.state = TrialState::failed;
                  return told;
                });
  const auto steps = steps_of(driver.run().proposals());
  EXPECT_TRUE(driver.strategy().finished());
  EXPECT_EQ(driver.strategy().take_fit_records().front().observations, 30);
  ASSERT_GE(steps.size(), 3u);
  for (const Proposal& proposal : steps[2]) EXPECT_EQ(proposal.architecture.steps.size(), 2u);
}

TEST(MfasStrategyTest, ScoresThatAreNoNumbersCountAsFailed) {
  Driver driver(testing::strategy_of({{"name", "mfas"}, {"samples", 3}, {"surrogate", kQuick}}, avmnist(), 15),
                [](const Architecture& a, int) {
                  return Told{0, a, TrialState::completed, std::nan("")};
                });
  EXPECT_EQ(driver.run().proposals().size(), 30u);
}

TEST(MfasStrategyTest, RefusesTheEndOfAnotherArchitecture) {
  auto strategy = testing::strategy_of({{"name", "mfas"}}, avmnist(), 15);
  const auto proposals = strategy->ask(2);
  EXPECT_THROW(strategy->tell({0, proposals[1].architecture, TrialState::completed, 0.5}), Error);
}

/// A landscape a surrogate can learn: each of four steps adds up to a quarter, most near taps 3 and 2 with ReLU.
double planted(const Architecture& architecture) {
  double score = 0;
  for (const FusionStep& step : architecture.steps) {
    const double distance = std::abs(step.taps[0] - 3) + std::abs(step.taps[1] - 2);
    score += 0.25 * std::exp(-distance / 2) * (step.activation == Activation::relu ? 1.0 : 0.5);
  }
  return score;
}

struct Found {
  double best = 0;  ///< the best score of the search
  double late = 0;  ///< mean of its last 60 trials
};

/// Means over seeds.
Found found_by(const json& options) {
  Found found;
  const int runs = 3;
  for (std::uint64_t seed = 0; seed < runs; ++seed) {
    Driver driver(testing::strategy_of(options, avmnist(), seed), [](const Architecture& a, int) {
      return Told{0, a, TrialState::completed, planted(a)};
    });
    const std::vector<Told>& history = driver.run().history();
    double best = 0;
    for (const Told& told : history) best = std::max(best, told.score);
    found.best += best / runs;
    for (std::size_t i = history.size() - 60; i < history.size(); ++i) found.late += history[i].score / 60 / runs;
  }
  return found;
}

TEST(MfasStrategyTest, FindsBetterNetworksThanChanceOnTheSameBudget) {
  const Found chance = found_by({{"name", "random"}, {"trials", 195}});
  const std::vector<json> surrogates{{{"name", "lstm"}, {"hidden", 24}, {"embedding", 24}, {"lr", 0.005}},
                                     {{"name", "ridge"}}};
  for (const json& surrogate : surrogates) {
    const Found found = found_by({{"name", "mfas"}, {"surrogate", surrogate}});
    EXPECT_GT(found.best, chance.best + 0.05) << surrogate;
    EXPECT_GT(found.late, chance.late + 0.1) << surrogate;
  }
}

TEST(ExpansionTest, ReplacesOrAppendsAndKeepsDuplicates) {
  const SearchSpace space = SearchSpace::whole(testing::tiny_spec(), 3);
  const auto& choices = space.step_choices();
  const std::vector<Architecture> previous{{{choices[0], choices[1]}}, {{choices[0], choices[1]}}};
  const auto replaced = expand(previous, choices, 0);
  ASSERT_EQ(replaced.size(), 2 * choices.size());
  EXPECT_EQ(replaced[3], (Architecture{{choices[3], choices[1]}}));
  EXPECT_EQ(replaced[3], replaced[3 + choices.size()]);
  const auto appended = expand(previous, choices, 2);
  EXPECT_EQ(appended[3], (Architecture{{choices[0], choices[1], choices[3]}}));
  EXPECT_EQ(expand({}, choices, 0).size(), choices.size());
  EXPECT_TRUE(expand({}, choices, 1).empty());
}

}  // namespace
}  // namespace fusion
