#include "search/rank_correlation.h"

#include <gtest/gtest.h>

#include <vector>

namespace fusion {
namespace {

TEST(RankCorrelationTest, LooksAtRanksOnly) {
  const std::vector<double> a{0.1, 0.2, 0.3, 0.4}, b{1, 10, 100, 1000}, c{4, 3, 2, 1};
  EXPECT_DOUBLE_EQ(rank_correlation(a, b).value(), 1);
  EXPECT_DOUBLE_EQ(rank_correlation(a, c).value(), -1);
}

TEST(RankCorrelationTest, EqualValuesShareTheirMeanRank) {
  // Ranks 0.5 0.5 2 3 against 0 1 2 3: 4.5 / sqrt(4.5 * 5).
  const std::vector<double> a{1, 1, 2, 3}, b{1, 2, 3, 4};
  EXPECT_NEAR(rank_correlation(a, b).value(), 0.9486832980505138, 1e-12);
}

TEST(RankCorrelationTest, IsAbsentWhereItMeansNothing) {
  EXPECT_FALSE(rank_correlation({}, {}));
  const std::vector<double> one{1}, same{2, 2, 2}, other{1, 2, 3};
  EXPECT_FALSE(rank_correlation(one, one));
  EXPECT_FALSE(rank_correlation(same, other));
}

TEST(MeanAbsErrorTest, AveragesDifferences) {
  const std::vector<double> a{1, 2}, b{2, 4};
  EXPECT_DOUBLE_EQ(mean_abs_error(a, b).value(), 1.5);
  EXPECT_FALSE(mean_abs_error({}, {}));
}

}  // namespace
}  // namespace fusion
