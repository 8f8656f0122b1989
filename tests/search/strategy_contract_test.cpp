#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "base/error.h"
#include "tests/search/strategies.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::Driver;
using testing::scored_by_chance;
using testing::sometimes_failing;

struct Case {
  std::string name;
  json options;
  int max_steps = 3;
  bool avmnist = false;  ///< else the tiny space: 8 choices per step
  bool seeded = true;    ///< another seed gives another sequence

  SearchSpace space() const {
    return SearchSpace::whole(avmnist ? testing::avmnist_spec() : testing::tiny_spec(), max_steps);
  }
  std::unique_ptr<Strategy> make(std::uint64_t seed) const { return testing::strategy_of(options, space(), seed); }
  bool distinct() const { return options.value("duplicates", "distinct") == "distinct"; }
};
void PrintTo(const Case& value, std::ostream* out) { *out << value.options; }

const json kSmallLstm{{"name", "lstm"}, {"hidden", 6}, {"embedding", 5}, {"epochs", 2}};

const std::vector<Case> kCases{
    {"Mfas", {{"name", "mfas"}, {"samples", 7}, {"surrogate", kSmallLstm}}, 4, true},
    {"MfasWithDuplicates", {{"name", "mfas"}, {"samples", 7}, {"surrogate", kSmallLstm}, {"duplicates", "reference"}}},
    {"MfasOnRidge", {{"name", "mfas"}, {"samples", 5}, {"iterations", 4}, {"surrogate", {{"name", "ridge"}}}}},
    {"MfasThatEatsItsSpace", {{"name", "mfas"}, {"samples", 20}, {"iterations", 5}, {"surrogate", kSmallLstm}}, 2},
    {"MfasOfOneLevel", {{"name", "mfas"}, {"levels", 1}, {"surrogate", kSmallLstm}}, 3, false, false},
    {"Random", {{"name", "random"}, {"trials", 60}}, 4, true},
    {"RandomWithDuplicates", {{"name", "random"}, {"trials", 60}, {"duplicates", "reference"}}, 2},
    {"RandomThatEatsItsSpace", {{"name", "random"}, {"trials", 1000}}, 2},
    {"Exhaustive", {{"name", "exhaustive"}}, 2, false, false},
    {"ExhaustiveOfTwoSteps", {{"name", "exhaustive"}, {"min_steps", 2}, {"max_steps", 2}}, 3, false, false},
};

class StrategyContractTest : public ::testing::TestWithParam<Case> {
 protected:
  std::vector<std::string> lines(std::uint64_t seed, const testing::Ending& ending = scored_by_chance) {
    return Driver(GetParam().make(seed), ending).run().lines();
  }
};

TEST_P(StrategyContractTest, SameSeedGivesTheSameSequence) {
  EXPECT_EQ(lines(7), lines(7));
  if (!GetParam().seeded) return;
  EXPECT_NE(lines(7), lines(8));
}

TEST_P(StrategyContractTest, CutsOfAskAndOrderOfEndsChangeNothing) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (const testing::Ending& ending : {testing::Ending(scored_by_chance), testing::Ending(sometimes_failing)}) {
    const std::vector<std::string> expected = lines(seed, ending);
    Rng rng(seed);
    for (const std::size_t workers : {1u, 2u, 5u, 64u, 1000u}) {
      Driver shuffled(GetParam().make(seed), ending);
      EXPECT_EQ(shuffled.run_shuffled(rng, workers).lines(), expected) << workers << " workers";
    }
  }
}

TEST_P(StrategyContractTest, AFreshInstanceContinuesFromTheHistory) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const std::vector<std::string> expected = lines(seed, sometimes_failing);
  Rng rng(seed);
  for (int round = 0; round < 8; ++round) {
    Driver crashed(GetParam().make(seed), sometimes_failing);
    crashed.run_shuffled(rng, 1 + rng.below(20), rng.below(expected.size()));
    Driver replayed(GetParam().make(seed), sometimes_failing);
    replayed.replay(crashed);
    EXPECT_EQ(replayed.lines(), crashed.lines());
    EXPECT_EQ(replayed.outstanding(), crashed.outstanding());
    EXPECT_EQ(replayed.run_shuffled(rng, 10).lines(), expected);
  }
}

TEST_P(StrategyContractTest, FinishesOnceEverythingWasTold) {
  Driver driver(GetParam().make(3), scored_by_chance);
  const auto planned = driver.strategy().total();
  while (driver.ask(1000) > 0 || driver.outstanding() > 0) {
    EXPECT_FALSE(driver.strategy().finished());
    while (driver.outstanding() > 0) driver.end(driver.outstanding() - 1);
  }
  EXPECT_TRUE(driver.strategy().finished());
  EXPECT_TRUE(driver.strategy().ask(10).empty());
  EXPECT_EQ(driver.strategy().total(), driver.proposals().size());
  ASSERT_TRUE(planned);
  EXPECT_GE(*planned, driver.proposals().size());
}

TEST_P(StrategyContractTest, ProposesNothingOutsideItsSpaceAndNoReplicaTwice) {
  Driver driver(GetParam().make(5), sometimes_failing);
  const SearchSpace space = GetParam().space();
  std::map<Architecture, int> times;
  for (const Proposal& proposal : driver.run().proposals()) {
    EXPECT_NO_THROW(space.check(proposal.architecture));
    EXPECT_EQ(proposal.replica, times[proposal.architecture]++);
    EXPECT_TRUE(proposal.replica == 0 || !GetParam().distinct()) << canonical_text(proposal.architecture);
  }
}

TEST_P(StrategyContractTest, TrialsThatAllFailEndTheSearch) {
  for (const TrialState state : {TrialState::failed, TrialState::cancelled}) {
    Driver driver(GetParam().make(5), [state](const Architecture& a, int) { return Told{0, a, state, 0}; });
    EXPECT_TRUE(driver.run().strategy().finished());
    EXPECT_FALSE(driver.proposals().empty());
    EXPECT_TRUE(driver.strategy().take_fit_records().empty());
  }
}

TEST_P(StrategyContractTest, AskingForNothingGivesNothing) {
  auto strategy = GetParam().make(5);
  EXPECT_TRUE(strategy->ask(0).empty());
  EXPECT_EQ(strategy->ask(1).size(), 1u);
}

TEST_P(StrategyContractTest, RefusesEndsThatCannotBe) {
  Driver driver(GetParam().make(5), scored_by_chance);
  driver.ask(2);
  const Architecture first = driver.proposals()[0].architecture;
  EXPECT_THROW(driver.strategy().tell({2, first, TrialState::completed, 0.5}), Error);
  EXPECT_THROW(driver.strategy().tell({-1, first, TrialState::completed, 0.5}), Error);
  EXPECT_THROW(driver.strategy().tell({0, first, TrialState::leased, 0.5}), Error);
  driver.strategy().tell({0, first, TrialState::completed, 0.5});
  EXPECT_THROW(driver.strategy().tell({0, first, TrialState::completed, 0.5}), Error);
}

TEST_P(StrategyContractTest, IsNamedAsInTheStudy) { EXPECT_EQ(GetParam().make(1)->name(), GetParam().options["name"]); }

INSTANTIATE_TEST_SUITE_P(All, StrategyContractTest, ::testing::ValuesIn(kCases),
                         [](const ::testing::TestParamInfo<Case>& param) { return param.param.name; });

TEST(ExhaustiveStrategyTest, GoesThroughTheCanonicalOrder) {
  const SearchSpace space = SearchSpace::whole(testing::tiny_spec(), 3);
  Driver driver(testing::strategy_of({{"name", "exhaustive"}, {"min_steps", 2}, {"max_steps", 3}}, space, 1),
                scored_by_chance);
  const auto& proposals = driver.run().proposals();
  ASSERT_EQ(proposals.size(), 64u + 512u);
  for (std::size_t i = 0; i < proposals.size(); ++i) EXPECT_EQ(proposals[i].architecture, space.at(8 + i));
}

TEST(RandomStrategyTest, WithoutDuplicatesCoversASmallSpace) {
  const SearchSpace space = SearchSpace::whole(testing::tiny_spec(), 2);
  Driver driver(testing::strategy_of({{"name", "random"}, {"trials", 500}}, space, 9), scored_by_chance);
  EXPECT_EQ(driver.strategy().total(), 72u);
  std::set<Architecture> seen;
  for (const Proposal& proposal : driver.run().proposals()) seen.insert(proposal.architecture);
  EXPECT_EQ(seen.size(), 72u);
}

TEST(RandomStrategyTest, LengthsAreUniform) {
  const SearchSpace space = SearchSpace::whole(testing::avmnist_spec(), 4);
  Driver driver(testing::strategy_of({{"name", "random"}, {"trials", 4000}, {"duplicates", "reference"}}, space, 9),
                scored_by_chance);
  driver.ask(4000);
  std::map<std::size_t, int> lengths;
  for (const Proposal& proposal : driver.proposals()) ++lengths[proposal.architecture.steps.size()];
  for (std::size_t length = 1; length <= 4; ++length) EXPECT_NEAR(lengths[length], 1000, 150);
}

}  // namespace
}  // namespace fusion
