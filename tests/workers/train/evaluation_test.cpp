#include "workers/train/evaluation.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(SplitEvaluationTest, ScoresAsWorkedOutByHand) {
  // Rows of class 0, 0, 1, 2; predicted 0, 1, 1, 1.
  const at::Tensor logits = at::tensor({2.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 3.0, 1.0, 0.0, 2.0, 1.0}, c10::kDouble).view({4, 3});
  SplitEvaluation split(3);
  split.add(logits, at::tensor({0, 0, 1, 2}, c10::kLong));
  const double e = std::exp(1.0);
  const double loss = (std::log(e * e + 2) - 2 + std::log(e + 2) + std::log(1 + e * e * e + e) - 3 + std::log(1 + e * e + e) - 1) / 4;
  EXPECT_NEAR(split.loss(), loss, 1e-14);
  const nlohmann::json json = split.to_json({"a", "b", "c"});
  EXPECT_EQ(json.at("rows"), 4);
  EXPECT_DOUBLE_EQ(json.at("accuracy").get<double>(), 0.5);
  EXPECT_DOUBLE_EQ(json.at("top5").get<double>(), 1);
  EXPECT_EQ(json.at("confusion"), nlohmann::json::parse("[[1, 1, 0], [0, 1, 0], [0, 1, 0]]"));
  // a: precision 1/1, recall 1/2.  b: 1/3 and 1/1.  c: never predicted.
  const double f_a = 2.0 / 3, f_b = 0.5;
  EXPECT_DOUBLE_EQ(json.at("macro_f1").get<double>(), (f_a + f_b) / 3);
  EXPECT_DOUBLE_EQ(json.at("weighted_f1").get<double>(), (2 * f_a + f_b) / 4);
  EXPECT_EQ(json.at("classes").at(0), (nlohmann::json{{"name", "a"}, {"rows", 2}, {"precision", 1.0}, {"recall", 0.5}, {"f1", f_a}}));
  EXPECT_EQ(json.at("classes").at(1), (nlohmann::json{{"name", "b"}, {"rows", 1}, {"precision", 1.0 / 3}, {"recall", 1.0}, {"f1", f_b}}));
  EXPECT_EQ(json.at("classes").at(2), (nlohmann::json{{"name", "c"}, {"rows", 1}, {"precision", 0.0}, {"recall", 0.0}, {"f1", 0.0}}));
}

TEST(SplitEvaluationTest, CountsTheFiveLargestAndBreaksTiesByTheOrderOfClasses) {
  SplitEvaluation split(7);
  const at::Tensor descending = at::tensor({7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0}).unsqueeze(0);
  split.add(descending, at::tensor({4}, c10::kLong));  // the fifth largest
  EXPECT_DOUBLE_EQ(split.top5(), 1);
  split.add(descending, at::tensor({5}, c10::kLong));
  EXPECT_DOUBLE_EQ(split.top5(), 0.5);
  const at::Tensor equal = descending.mul(0);
  split.add(equal, at::tensor({5}, c10::kLong));  // equal logits: the first classes are the largest
  EXPECT_DOUBLE_EQ(split.top5(), 1.0 / 3);
  EXPECT_EQ(split.confusion().count(5, 0), 2);
}

TEST(SplitEvaluationTest, AddsUpOverBatchesAndAgreesWithLibTorch) {
  const at::Tensor logits = at::rand({50, 9}).mul(8), labels = at::randint(9, {50}, c10::kLong);
  SplitEvaluation whole(9), pieces(9);
  whole.add(logits, labels);
  for (std::int64_t begin = 0; begin < 50; begin += 7) {
    pieces.add(logits.slice(0, begin, std::min<std::int64_t>(50, begin + 7)), labels.slice(0, begin, std::min<std::int64_t>(50, begin + 7)));
  }
  EXPECT_EQ(whole.to_json({}), pieces.to_json({}));
  EXPECT_EQ(whole.to_json({}).at("classes").at(8).at("name"), "8");
  EXPECT_NEAR(whole.loss(), at::cross_entropy_loss(logits.to(c10::kDouble), labels).item<double>(), 1e-12);
}

TEST(SplitEvaluationTest, HoldsLargeLogitsAndRefusesWhatIsNotFinite) {
  SplitEvaluation split(2);
  split.add(at::tensor({1e30, -1e30}).unsqueeze(0), at::tensor({0}, c10::kLong));
  EXPECT_EQ(split.loss(), 0);
  const at::Tensor bad = at::tensor({0.0, 0.0, 1.0, std::numeric_limits<double>::quiet_NaN()}).view({2, 2});
  EXPECT_THAT([&] { split.add(bad, at::tensor({0, 1}, c10::kLong)); },
              ThrowsMessage<ModelError>(HasSubstr("row 2: the logit of class 1 is not a finite number")));
  EXPECT_EQ(split.rows(), 1);
}

TEST(SplitEvaluationTest, IsZeroWithoutRows) {
  const nlohmann::json json = SplitEvaluation(2).to_json({});
  for (const char* name : {"accuracy", "top5", "weighted_f1", "macro_f1", "loss"}) EXPECT_EQ(json.at(name), 0.0) << name;
}

}  // namespace
}  // namespace fusion
