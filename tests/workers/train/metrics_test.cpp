#include "workers/train/metrics.h"

#include <gtest/gtest.h>

namespace fusion {
namespace {

ConfusionMatrix matrix(std::int64_t classes, std::vector<std::int64_t> labels, std::vector<std::int64_t> predictions) {
  ConfusionMatrix counts(classes);
  counts.add(labels, predictions);
  return counts;
}

TEST(ConfusionMatrixTest, ScoresAsWorkedOutByHand) {
  // Class 0: tp 2, fp 1, fn 1, F1 2/3.  Class 1: tp 1, fp 1, fn 1, F1 1/2.  Class 2: tp 1, fp 0, fn 0, F1 1.
  const ConfusionMatrix counts = matrix(3, {0, 0, 0, 1, 1, 2}, {0, 0, 1, 1, 0, 2});
  EXPECT_DOUBLE_EQ(counts.accuracy(), 4.0 / 6);
  EXPECT_DOUBLE_EQ(counts.macro_f1(), (2.0 / 3 + 0.5 + 1) / 3);
  EXPECT_DOUBLE_EQ(counts.weighted_f1(), (3 * 2.0 / 3 + 2 * 0.5 + 1) / 6);
  EXPECT_EQ(counts.score(Metric::accuracy), counts.accuracy());
  EXPECT_EQ(counts.score(Metric::macro_f1), counts.macro_f1());
  EXPECT_EQ(counts.score(Metric::weighted_f1), counts.weighted_f1());
  EXPECT_EQ(counts.count(0, 1), 1);
}

TEST(ConfusionMatrixTest, LeavesAbsentClassesOutOfTheMacroMean) {
  const ConfusionMatrix counts = matrix(5, {0, 0, 3}, {0, 0, 4});  // class 3 missed, class 4 wrongly said, 1 and 2 absent
  EXPECT_DOUBLE_EQ(counts.macro_f1(), 1.0 / 3);
  EXPECT_DOUBLE_EQ(counts.weighted_f1(), 2.0 / 3);
}

TEST(ConfusionMatrixTest, AddsUpOverPieces) {
  ConfusionMatrix counts = matrix(2, {0, 1}, {0, 0});
  counts.add(std::vector<std::int64_t>{1}, std::vector<std::int64_t>{1});
  EXPECT_EQ(counts.rows(), 3);
  EXPECT_DOUBLE_EQ(counts.accuracy(), 2.0 / 3);
}

TEST(ConfusionMatrixTest, IsZeroWithoutRows) {
  const ConfusionMatrix counts(3);
  EXPECT_EQ(counts.accuracy(), 0);
  EXPECT_EQ(counts.macro_f1(), 0);
  EXPECT_EQ(counts.weighted_f1(), 0);
}

}  // namespace
}  // namespace fusion
