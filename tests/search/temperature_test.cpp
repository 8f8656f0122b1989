#include "search/temperature.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/random.h"
#include "search/portable_math.h"

namespace fusion {
namespace {

using ::testing::ElementsAre;

TEST(TemperatureTest, TheReferenceCounterRepeatsAndTheRepairedOneRuns) {
  TemperatureSchedule schedule;
  std::vector<int> reference, repaired;
  for (int iteration = 0; iteration < 3; ++iteration) {
    for (int level = 0; level < 4; ++level) {
      schedule.counter = TemperatureCounter::reference;
      reference.push_back(schedule.index(iteration, level));
      schedule.counter = TemperatureCounter::repaired;
      repaired.push_back(schedule.index(iteration, level));
    }
  }
  EXPECT_THAT(reference, ElementsAre(0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9));
  EXPECT_THAT(repaired, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11));
}

TEST(DrawProbabilitiesTest, ColdIsGreedyAndHotIsUniform) {
  const std::vector<double> scores{0.5, 0.6, 0.9};
  const auto cold = draw_probabilities(scores, 0.05), hot = draw_probabilities(scores, 1000);
  EXPECT_GT(cold[2], 0.999f);
  for (const float p : hot) EXPECT_NEAR(p, 1.0 / 3, 1e-3);
}

TEST(DrawProbabilitiesTest, ScoresThatCannotBeWeighedCountAsNothing) {
  EXPECT_THAT(draw_probabilities(std::vector<double>{-1, 0.5, std::nan("")}, 1), ElementsAre(0, 1, 0));
  EXPECT_THAT(draw_probabilities(std::vector<double>{0, 0}, 1), ElementsAre(0.5f, 0.5f));
  EXPECT_TRUE(draw_probabilities({}, 1).empty());
}

TEST(DrawProbabilitiesTest, VanishingPowersGiveAUniformDraw) {
  const std::vector<double> scores(50, 0.5);  // (1/50)^100 is no float32
  for (const float p : draw_probabilities(scores, 0.01)) EXPECT_FLOAT_EQ(p, 0.02f);
}

/// What numpy.random.choice does with these numbers: round one looks both up, finds index 2 twice, keeps it once; round
/// two looks the third up without it.
TEST(DrawWithoutReplacementTest, DrawsInRoundsLikeNumpy) {
  const std::vector<float> p{0.25f, 0.25f, 0.5f};
  std::vector<double> stream{0.9, 0.6, 0.6};
  std::size_t used = 0;
  const auto drawn = draw_without_replacement(p, 2, [&] { return stream.at(used++); });
  EXPECT_THAT(drawn, ElementsAre(2, 1));
  EXPECT_EQ(used, 3u);
}

TEST(DrawWithoutReplacementTest, TheOrderIsThatOfTheNumbers) {
  const std::vector<float> p{0.25f, 0.25f, 0.25f, 0.25f};
  std::vector<double> stream{0.8, 0.1, 0.3};
  std::size_t used = 0;
  EXPECT_THAT(draw_without_replacement(p, 3, [&] { return stream.at(used++); }), ElementsAre(3, 0, 1));
}

TEST(DrawWithoutReplacementTest, ImpossibleOnesComeLastAndNothingTwice) {
  Rng rng(4);
  const std::vector<float> p{0, 0.5f, 0, 0.5f, 0};
  for (int round = 0; round < 100; ++round) {
    auto drawn = draw_without_replacement(p, 4, [&] { return rng.uniform(); });
    ASSERT_EQ(drawn.size(), 4u);
    EXPECT_EQ(drawn[0] + drawn[1], 4u);
    EXPECT_EQ(drawn[2] % 2 + drawn[3] % 2, 0u);
    EXPECT_NE(drawn[2], drawn[3]);
  }
  EXPECT_EQ(draw_without_replacement(p, 9, [&] { return rng.uniform(); }).size(), 5u);
  EXPECT_TRUE(draw_without_replacement({}, 3, [&] { return rng.uniform(); }).empty());
}

TEST(PortableMathTest, AgreesWithTheLibraryToAFewUnitsInTheLastPlace) {
  Rng rng(5);
  for (int i = 0; i < 20'000; ++i) {
    const double x = rng.uniform(-700, 700);
    ASSERT_NEAR(portable_exp(x) / std::exp(x), 1, 1e-15) << x;
    const double y = std::exp(rng.uniform(-700, 700));
    ASSERT_NEAR(portable_log(y), std::log(y), 4e-16 * std::abs(std::log(y)) + 1e-16) << y;
  }
  EXPECT_EQ(portable_exp(0), 1);
  EXPECT_EQ(portable_log(1), 0);
  EXPECT_EQ(portable_exp(-INFINITY), 0);
  EXPECT_EQ(portable_exp(800), INFINITY);
  EXPECT_EQ(portable_log(0), -INFINITY);
}

}  // namespace
}  // namespace fusion
