// A retraining that is given the exporter.
#include <ATen/ops/argmax.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <nlohmann/json.hpp>

#include "model/torch_compat.h"
#include "tests/workers/train/small_retraining.h"
#include "workers/train/export_model.h"

namespace fusion {
namespace {

using nlohmann::json;

TEST(ExportRetrainingTest, WritesAModelThatScoresAsTheRetrainingDid) {
  const testing::SmallRetraining small;
  RetrainContext context;
  context.export_model = export_model;
  const RetrainingOutcome outcome = retrain(small.job(testing::SmallRetraining::options(HeadKind::mmtm), "exported"), context);
  ASSERT_EQ(outcome.outcome, Outcome::completed) << outcome.error;
  torch::jit::Module module = torch::jit::load((small.data.folder / "exported/model.pt").string());
  const json metadata = json::parse(module.attr("metadata").toStringRef());
  EXPECT_EQ(metadata.at("architecture").at("triplets"), json::parse("[[1,0,0],[0,1,1]]"));
  const at::NoGradGuard no_grad;
  const Dataset dataset = Dataset::open(small.data.manifest());
  c10::Dict<std::string, at::Tensor> seen;
  seen.insert("dots", dataset.batch(0, "test", 0, 10));
  seen.insert("waves", dataset.batch(1, "test", 0, 10));
  module.setattr("normalise", false);
  const at::Tensor predicted = module.forward({seen}).toTensor().argmax(1);
  const double accuracy = predicted.eq(dataset.labels("test")).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(accuracy, *outcome.score->test_score, 1e-9);
}

}  // namespace
}  // namespace fusion
