#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "surrogate/lstm_surrogate.h"
#include "surrogate/make_surrogate.h"
#include "surrogate/ridge_surrogate.h"
#include "tests/space/spaces.h"

namespace fusion {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

SearchSpace space() { return SearchSpace::whole(testing::avmnist_spec(), 4); }

std::unique_ptr<Surrogate> surrogate_of(const json& options, std::uint64_t seed = 1) {
  JsonProblems problems;
  JsonReader reader(options, "study.json", problems, "/strategy/surrogate");
  auto surrogate = make_surrogate(reader, space(), seed);
  problems.throw_if_any();
  return surrogate;
}

/// Every step adds to the score, more so the first; deep taps are better.
double additive(const Architecture& architecture) {
  double score = 0.2, weight = 0.06;
  for (const FusionStep& step : architecture.steps) {
    score += weight * (step.taps[0] / 2.0 + step.taps[1] + (step.activation == Activation::relu ? 1 : 0));
    weight /= 2;
  }
  return score;
}

std::vector<Architecture> random_architectures(std::size_t count, std::uint64_t seed) {
  Rng rng(seed);
  const SearchSpace all = space();
  std::vector<Architecture> architectures;
  for (std::size_t i = 0; i < count; ++i) architectures.push_back(all.sample(rng));
  return architectures;
}

std::vector<Observation> observed(const std::vector<Architecture>& architectures) {
  std::vector<Observation> observations;
  for (const Architecture& architecture : architectures) observations.push_back({architecture, additive(architecture)});
  return observations;
}

double mean_abs_error(const Surrogate& surrogate, const std::vector<Architecture>& architectures) {
  const auto predictions = surrogate.predict(architectures);
  double sum = 0;
  for (std::size_t i = 0; i < architectures.size(); ++i) sum += std::abs(predictions[i] - additive(architectures[i]));
  return sum / static_cast<double>(architectures.size());
}

class SurrogateContractTest : public ::testing::TestWithParam<json> {};

TEST_P(SurrogateContractTest, PredictsOneScoreInRangePerCandidateInTheirOrder) {
  auto surrogate = surrogate_of(GetParam());
  const auto candidates = random_architectures(60, 2);
  for (int round = 0; round < 2; ++round) {
    const auto together = surrogate->predict(candidates);
    ASSERT_EQ(together.size(), candidates.size());
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      EXPECT_GE(together[i], 0);
      EXPECT_LE(together[i], 1);
      EXPECT_EQ(surrogate->predict(std::vector<Architecture>{candidates[i]}).at(0), together[i]);
    }
    surrogate->fit(observed(random_architectures(80, 3)));
  }
  EXPECT_TRUE(surrogate->predict({}).empty());
}

TEST_P(SurrogateContractTest, EqualHistoriesOfFitsGiveEqualBits) {
  auto one = surrogate_of(GetParam(), 5), two = surrogate_of(GetParam(), 5);
  const auto candidates = random_architectures(40, 4);
  for (std::uint64_t round = 0; round < 3; ++round) {
    const auto observations = observed(random_architectures(20 + 20 * round, round));
    EXPECT_EQ(one->fit(observations).loss, two->fit(observations).loss);
    EXPECT_EQ(one->predict(candidates), two->predict(candidates));
  }
}

TEST_P(SurrogateContractTest, LearnsAnAdditiveLandscape) {
  auto surrogate = surrogate_of(GetParam());
  const auto known = random_architectures(150, 6), unseen = random_architectures(150, 7);
  const double before = mean_abs_error(*surrogate, unseen);
  for (int fit = 0; fit < 12; ++fit) surrogate->fit(observed(known));
  EXPECT_LT(mean_abs_error(*surrogate, unseen), before / 3);
}

TEST_P(SurrogateContractTest, ReportsTheFit) {
  auto surrogate = surrogate_of(GetParam());
  auto observations = observed(random_architectures(30, 8));
  const FitReport once = surrogate->fit(observations);
  EXPECT_GT(once.observations, 20);
  EXPECT_GT(once.loss, 0);
  EXPECT_GE(once.seconds, 0);
  auto other = surrogate_of(GetParam());
  auto doubled = observations;
  for (Observation observation : observations) {
    observation.score -= 0.1;  // a worse score of a known architecture counts for nothing
    doubled.push_back(observation);
  }
  const FitReport twice = other->fit(doubled);
  EXPECT_EQ(twice.observations, once.observations);
  EXPECT_EQ(twice.loss, once.loss);
}

TEST_P(SurrogateContractTest, AFitOnNothingIsHarmless) {
  auto surrogate = surrogate_of(GetParam());
  const auto candidates = random_architectures(5, 9);
  const auto before = surrogate->predict(candidates);
  EXPECT_EQ(surrogate->fit({}).observations, 0);
  EXPECT_EQ(surrogate->predict(candidates), before);
}

TEST_P(SurrogateContractTest, IsNamedAsInTheStudy) { EXPECT_EQ(surrogate_of(GetParam())->name(), GetParam()["name"]); }

INSTANTIATE_TEST_SUITE_P(All, SurrogateContractTest,
                         ::testing::Values(json{{"name", "lstm"}, {"hidden", 24}, {"embedding", 16}, {"lr", 0.01}},
                                           json{{"name", "ridge"}, {"lambda", 0.01}}),
                         [](const ::testing::TestParamInfo<json>& param) {
                           return param.param["name"].get<std::string>();
                         });

TEST(LstmSurrogateTest, TrainsLengthsInTheOrderInWhichTheyCame) {
  LstmSurrogate surrogate(space(), {});
  const SearchSpace all = space();
  const std::vector<Observation> observations{{all.at(40), 0.5}, {all.at(3), 0.4}, {all.at(50), 0.6}};
  const FitReport report = surrogate.fit(observations);
  EXPECT_EQ(report.lengths, (std::vector<int>{2, 1}));
  EXPECT_EQ(report.loss_by_length.size(), 2u);
  EXPECT_EQ(report.epochs, 50);
}

TEST(LstmSurrogateTest, AFitContinuesFromTheLastOne) {
  LstmSurrogate surrogate(space(), {});
  const auto observations = observed(random_architectures(40, 10));
  const double first = surrogate.fit(observations).loss;
  EXPECT_LT(surrogate.fit(observations).loss, first);
}

TEST(LstmSurrogateTest, TheSeedIsTheInitialWeights) {
  const auto candidates = random_architectures(3, 11);
  EXPECT_NE(surrogate_of({{"name", "lstm"}}, 1)->predict(candidates),
            surrogate_of({{"name", "lstm"}}, 2)->predict(candidates));
  EXPECT_EQ(surrogate_of({{"seed", 9u}}, 1)->predict(candidates), surrogate_of({{"seed", 9u}}, 2)->predict(candidates));
}

TEST(RidgeSurrogateTest, WithoutPenaltyAnAdditiveLandscapeIsExact) {
  RidgeSurrogate surrogate(space(), {1e-9});
  surrogate.fit(observed(random_architectures(300, 12)));
  EXPECT_LT(mean_abs_error(surrogate, random_architectures(100, 13)), 1e-7);
}

TEST(RidgeSurrogateTest, WithAHugePenaltyOnlyTheMeanIsLeft) {
  RidgeSurrogate surrogate(space(), {1e9});
  const std::vector<Observation> observations{{space().at(1), 0.2}, {space().at(2), 0.6}};
  surrogate.fit(observations);
  EXPECT_NEAR(surrogate.predict(std::vector<Architecture>{space().at(1)}).at(0), 0.4, 1e-8);
}

TEST(MakeSurrogateTest, ReportsEveryProblem) {
  try {
    surrogate_of({{"hidden", 0}, {"lambda", 1}, {"epoch", 5}});
    FAIL() << "no problem was found";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.problems().size(), 3u);
    EXPECT_THAT(error.what(), HasSubstr("/strategy/surrogate/hidden"));
    EXPECT_THAT(error.what(), HasSubstr("did you mean \"epochs\"?"));
  }
  EXPECT_THROW(surrogate_of({{"name", "forest"}}), ConfigError);
  EXPECT_EQ(surrogate_of(json::object())->name(), "lstm");
}

}  // namespace
}  // namespace fusion
