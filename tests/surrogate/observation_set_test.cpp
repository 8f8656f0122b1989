#include "surrogate/observation_set.h"

#include <gtest/gtest.h>

namespace fusion {
namespace {

Architecture network(std::vector<std::int32_t> taps) {
  Architecture architecture;
  for (const std::int32_t tap : taps) architecture.steps.push_back({{tap, 0}, FusionOp::concat_fc, Activation::relu});
  return architecture;
}

TEST(ObservationSetTest, KeepsTheBestScoreAndTheFirstPlace) {
  ObservationSet set;
  set.add(network({0}), 0.5);
  set.add(network({1}), 0.6);
  set.add(network({0}), 0.4);
  set.add(network({0}), 0.7);
  ASSERT_EQ(set.size(), 2u);
  EXPECT_EQ(set.all()[0].architecture, network({0}));
  EXPECT_EQ(set.all()[0].score, 0.7);
  EXPECT_TRUE(set.contains(network({1})));
  EXPECT_FALSE(set.contains(network({2})));
}

TEST(ObservationSetTest, GroupsByLengthInTheOrderOfFirstAppearance) {
  ObservationSet set;
  for (const auto& taps : std::vector<std::vector<std::int32_t>>{{0, 1}, {0}, {1, 1}, {0, 1, 2}, {3}}) {
    set.add(network(taps), 0.5);
  }
  const auto buckets = set.buckets();
  ASSERT_EQ(buckets.size(), 3u);
  EXPECT_EQ(buckets[0].length, 2);
  EXPECT_EQ(buckets[0].observations[1].architecture, network({1, 1}));
  EXPECT_EQ(buckets[1].length, 1);
  EXPECT_EQ(buckets[1].observations.size(), 2u);
  EXPECT_EQ(buckets[2].length, 3);
}

TEST(ObservationSetTest, TheBestComeSortedAndEqualOnesInTheirOrder) {
  ObservationSet set;
  set.add(network({0}), 0.5);
  set.add(network({1}), 0.9);
  set.add(network({2}), 0.5);
  set.add(network({3}), 0.1);
  const auto best = set.best(3);
  ASSERT_EQ(best.size(), 3u);
  EXPECT_EQ(best[0].architecture, network({1}));
  EXPECT_EQ(best[1].architecture, network({0}));
  EXPECT_EQ(best[2].architecture, network({2}));
  EXPECT_EQ(set.best(10).size(), 4u);
}

}  // namespace
}  // namespace fusion
