#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/search/strategies.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::problems_of;

SearchSpace space_of(const nlohmann::json& options) {
  JsonProblems problems;
  JsonReader reader(options, "study.json", problems, "/space");
  SearchSpace space = SearchSpace::read(reader, testing::avmnist_spec());
  problems.throw_if_any();
  return space;
}

TEST(StrategyOptionsTest, ADefaultNeedsItsNameOnly) {
  EXPECT_EQ(problems_of({{"name", "mfas"}}, space_of({})), "");
  EXPECT_EQ(problems_of({{"name", "random"}, {"trials", 5}}, space_of({})), "");
  EXPECT_EQ(problems_of({{"name", "exhaustive"}}, space_of({})), "");
}

TEST(StrategyOptionsTest, UnknownNamesListTheKnownOnes) {
  EXPECT_THAT(problems_of({{"name", "annealing"}}, space_of({})),
              AllOf(HasSubstr("/strategy/name"), HasSubstr("annealing"), HasSubstr("mfas, random, exhaustive")));
  EXPECT_THAT(problems_of({{"name", "mfas"}, {"surrogate", {{"name", "forest"}}}}, space_of({})),
              AllOf(HasSubstr("/strategy/surrogate/name"), HasSubstr("lstm, ridge")));
  EXPECT_THAT(problems_of(nlohmann::json::object(), space_of({})), HasSubstr("/strategy/name: is missing"));
}

TEST(StrategyOptionsTest, EveryProblemIsReportedAtOnce) {
  const nlohmann::json options{{"name", "mfas"},
                               {"iterations", 0},
                               {"levels", 5},
                               {"sample", 3},
                               {"duplicates", "none"},
                               {"temperature_counter", "fixed"},
                               {"surrogate", {{"epoch", 3}, {"lr", -1}, {"lambda", 1}}}};
  const std::string problems = problems_of(options, space_of({}));
  EXPECT_THAT(problems, HasSubstr("/strategy/iterations: expected an integer in [1, 1000], got 0"));
  EXPECT_THAT(problems, HasSubstr("/strategy/levels: expected an integer in [1, 4], got 5"));
  EXPECT_THAT(problems, HasSubstr("did you mean \"samples\"?"));
  EXPECT_THAT(problems, HasSubstr("expected one of distinct, reference, got \"none\""));
  EXPECT_THAT(problems, HasSubstr("expected one of reference, repaired, got \"fixed\""));
  EXPECT_THAT(problems, HasSubstr("did you mean \"epochs\"?"));
  EXPECT_THAT(problems, HasSubstr("/strategy/surrogate/lr"));
  EXPECT_THAT(problems, HasSubstr("/strategy/surrogate/lambda"));
}

TEST(StrategyOptionsTest, RandomNeedsItsTrials) {
  EXPECT_THAT(problems_of({{"name", "random"}}, space_of({})), HasSubstr("/strategy/trials: is missing"));
}

TEST(StrategyOptionsTest, MfasNeedsOneStepNetworks) {
  EXPECT_THAT(problems_of({{"name", "mfas"}}, space_of({{"steps", {{"min", 2}, {"max", 3}}}})),
              HasSubstr("/space/steps/min"));
}

TEST(StrategyOptionsTest, LevelsFollowTheSpace) {
  const SearchSpace space = space_of({{"steps", {{"max", 2}}}});
  EXPECT_EQ(testing::strategy_of({{"name", "mfas"}}, space, 1)->total(), 30u + 5 * 15);
  EXPECT_EQ(testing::strategy_of({{"name", "mfas"}, {"levels", 1}}, space, 1)->total(), 30u);
  EXPECT_THAT(problems_of({{"name", "mfas"}, {"levels", 3}}, space), HasSubstr("[1, 2]"));
}

TEST(StrategyOptionsTest, ExhaustiveRefusesWhatItCannotFinish) {
  const SearchSpace space = space_of({{"steps", {{"max", 8}}}});
  EXPECT_THAT(problems_of({{"name", "exhaustive"}}, space), AllOf(HasSubstr("1 to 8 steps"), HasSubstr("10000000")));
  EXPECT_EQ(problems_of({{"name", "exhaustive"}, {"max_steps", 3}}, space), "");
  EXPECT_THAT(problems_of({{"name", "exhaustive"}, {"min_steps", 3}, {"max_steps", 2}}, space),
              HasSubstr("larger than max_steps 2"));
  EXPECT_EQ(testing::strategy_of({{"name", "exhaustive"}, {"max_steps", 3}}, space, 1)->total(), 27'930u);
}

}  // namespace
}  // namespace fusion
