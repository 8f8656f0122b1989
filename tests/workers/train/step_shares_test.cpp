#include "workers/train/step_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fusion {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(StepSharesTest, OneRankReadsWholeBatches) {
  EXPECT_THAT(step_shares(32, 72, {.rows_at_once = 16}),
              ElementsAre(BatchShare{32, 48, 16, false}, BatchShare{48, 64, 16, false}, BatchShare{64, 72, 8, false}));
}

TEST(StepSharesTest, PartsOfEveryBatchLieBesideEachOtherAndAreAllOfIt) {
  for (int ranks = 1; ranks <= 5; ++ranks) {
    for (std::int64_t rows = 1; rows <= 40; ++rows) {
      std::vector<std::vector<BatchShare>> of_ranks;
      for (int rank = 0; rank < ranks; ++rank) of_ranks.push_back(step_shares(7, 7 + rows, {16, rank, ranks, false}));
      std::int64_t at = 7;
      for (std::size_t batch = 0; batch < of_ranks[0].size(); ++batch) {
        const std::int64_t begin = at, of_rows = of_ranks[0][batch].of_rows;
        double weights = 0;
        for (const std::vector<BatchShare>& shares : of_ranks) {
          const BatchShare& share = shares.at(batch);
          EXPECT_EQ(share.of_rows, of_rows);
          EXPECT_EQ(share.begin, share.split ? at : begin);
          EXPECT_EQ(share.end - share.begin, share.split ? share.end - at : of_rows);
          EXPECT_GE(share.end - share.begin, share.split ? 2 : 1);
          at = share.end;
          weights += share.weight(ranks);
        }
        EXPECT_EQ(at, begin + of_rows);
        EXPECT_NEAR(weights, static_cast<double>(of_rows), 1e-12);
      }
      EXPECT_EQ(at, 7 + rows);
    }
  }
}

TEST(StepSharesTest, TooFewRowsAreReadByEveryRank) {
  for (int rank = 0; rank < 3; ++rank) EXPECT_THAT(step_shares(0, 5, {16, rank, 3, true}), ElementsAre(BatchShare{0, 5, 5, false}));
}

TEST(StepSharesTest, ASingleRowHasNoVariance) {
  EXPECT_THAT(step_shares(0, 1, {16, 0, 2, true}), IsEmpty());
  EXPECT_THAT(step_shares(0, 1, {16, 0, 2, false}), ElementsAre(BatchShare{0, 1, 1, false}));
  EXPECT_THAT(step_shares(0, 1, {1, 0, 2, true}), ElementsAre(BatchShare{0, 1, 1, false}));
}

}  // namespace
}  // namespace fusion
