#include "workers/train/retrain.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/tensor_files.h"
#include "model/tensor_io.h"
#include "tests/workers/train/small_retraining.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::SmallRetraining;

TEST(RetrainTest, TrainsInTwoPhasesAndLeavesAModel) {
  const SmallRetraining small;
  const RetrainingJob job = small.job(SmallRetraining::options(), "out");
  std::vector<RetrainingEpoch> epochs;
  RetrainContext context;
  context.on_epoch = [&](const RetrainingEpoch& epoch) { epochs.push_back(epoch); };
  const RetrainingOutcome outcome = retrain(job, context);
  ASSERT_EQ(outcome.outcome, Outcome::completed) << outcome.error;
  const RetrainingScore& score = *outcome.score;
  ASSERT_EQ(epochs.size(), 4U);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(epochs[static_cast<std::size_t>(i)].phase, i == 0 ? 1 : 2);
  double best = 0;
  for (const RetrainingEpoch& epoch : epochs) best = std::max(best, epoch.dev_score);
  EXPECT_EQ(score.dev_score, best);
  EXPECT_TRUE(score.test_score.has_value());
  EXPECT_EQ(score.evaluation.at("test").at("rows"), 10);
  EXPECT_EQ(score.batch, 16);
  EXPECT_EQ(score.parameters, score.trained_parameters);
  ASSERT_EQ(score.artifacts.size(), 2U);
  for (const Artifact& artifact : score.artifacts) {
    EXPECT_EQ(sha256_of_file(artifact.path), artifact.sha256);
    EXPECT_EQ(static_cast<std::int64_t>(std::filesystem::file_size(artifact.path)), artifact.bytes);
  }
  const nlohmann::json document = parse_json_file(std::filesystem::path(job.folder) / "architecture.json");
  EXPECT_EQ(document.at("architecture").at("triplets"), to_triplets(job.architecture));
  EXPECT_EQ(document.at("modalities")[0].at("backbone").at("arch").at("blocks"), 2);
  EXPECT_EQ(document.at("epochs").size(), 4U);
  const auto file = SafetensorsFile::open(std::filesystem::path(job.folder) / "model.safetensors");
  EXPECT_TRUE(file.contains("fusion.layer1.linear.weight"));
  EXPECT_TRUE(file.contains("backbone.waves.bn2.running_var"));
}

/// A tensor of a retraining's model.
at::Tensor weight(const RetrainingJob& job, const std::string& name) {
  return copy_tensor(SafetensorsFile::open(std::filesystem::path(job.folder) / "model.safetensors").at(name));
}

TEST(RetrainTest, LeavesBackbonesAsTheyAreWithoutFinetuning) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options();
  options.finetune = Finetune::none;
  const RetrainingJob none = small.job(options, "none");
  const RetrainingOutcome outcome = retrain(none);
  ASSERT_EQ(outcome.outcome, Outcome::completed) << outcome.error;
  EXPECT_LT(outcome.score->trained_parameters, outcome.score->parameters);
  options.finetune = Finetune::all;
  options.fusion_epochs = 0;
  options.eta_max = 0.01;
  const RetrainingJob all = small.job(options, "all");
  ASSERT_EQ(retrain(all).outcome, Outcome::completed);
  const auto own = SafetensorsFile::open(small.data.folder / "backbones/dots.safetensors");
  EXPECT_TRUE(weight(none, "backbone.dots.conv1.weight").equal(copy_tensor(own.at("conv1.weight"))));
  EXPECT_FALSE(weight(all, "backbone.dots.conv1.weight").equal(copy_tensor(own.at("conv1.weight"))));
}

/// The final weights must not tell at which epochs a training was stopped.
void expect_same_bytes_when_stopped(const RetrainingOptions& options, TapKeep keep = TapKeep::pooled) {
  SmallRetraining small;
  if (keep == TapKeep::time) small.extract({}, keep);
  const std::string undisturbed = SmallRetraining::digest_of(retrain(small.job(options, "undisturbed")));
  EXPECT_EQ(undisturbed.size(), 64U) << undisturbed;
  const RetrainingJob job = small.job(options, "stopped");
  RetrainingOutcome outcome;
  int attempts = 0, told = 0;
  do {
    std::stop_source stop;
    RetrainContext context;
    context.hand_back = stop.get_token();
    context.on_epoch = [&](const RetrainingEpoch& epoch) {
      EXPECT_TRUE(epoch.epoch == told || epoch.epoch == told + 1);  // the last one again, then one new epoch
      if (epoch.epoch == told + 1) stop.request_stop();
      told = epoch.epoch;
    };
    outcome = retrain(job, context);
    ASSERT_LE(++attempts, options.total_epochs() + 1);
  } while (outcome.outcome == Outcome::preempted);
  EXPECT_EQ(SmallRetraining::digest_of(outcome), undisturbed) << outcome.error;
  EXPECT_GE(attempts, options.total_epochs());
}

TEST(RetrainTest, GivesTheSameBytesHoweverOftenItIsStopped) { expect_same_bytes_when_stopped(SmallRetraining::options()); }

TEST(RetrainTest, GivesTheSameBytesWithEveryOption) {
  RetrainingOptions options = SmallRetraining::options();
  options.batchnorm = options.alphas = true;
  options.fusion_epochs = 2;
  options.accumulate = 2;
  options.batch = 8;
  options.clip_norm = 0.5;
  options.optimiser = Optimiser::adamw;
  options.schedule = RateSchedule::plateau;
  options.plateau_patience = 0;
  expect_same_bytes_when_stopped(options);
}

TEST(RetrainTest, GivesTheSameBytesWithGatedStreams) { expect_same_bytes_when_stopped(SmallRetraining::options(HeadKind::mmtm)); }

TEST(RetrainTest, GivesTheSameBytesWithATemporalHead) { expect_same_bytes_when_stopped(SmallRetraining::options(HeadKind::bert)); }

TEST(RetrainTest, GivesTheSameBytesFromStoredTokens) {
  for (const Finetune finetune : {Finetune::none, Finetune::all}) {
    RetrainingOptions options = SmallRetraining::options(HeadKind::bert);
    options.finetune = finetune;
    options.fusion_epochs = 2;
    options.reduction = TokenReduction::frab;
    expect_same_bytes_when_stopped(options, TapKeep::time);
  }
}

/// All weights and figures of one retraining against another's, which did the same sums in another order.
void expect_same_but_for_rounding(const RetrainingJob& job, const RetrainingOutcome& one, const RetrainingJob& other_job,
                                  const RetrainingOutcome& other) {
  ASSERT_EQ(one.outcome, Outcome::completed) << one.error;
  ASSERT_EQ(other.outcome, Outcome::completed) << other.error;
  EXPECT_NEAR(one.score->train_loss, other.score->train_loss, 1e-3);
  EXPECT_GT(one.score->best_epoch, 0);
  EXPECT_EQ(one.score->best_epoch, other.score->best_epoch);
  EXPECT_NEAR(one.score->evaluation.at("test").at("loss").get<double>(), other.score->evaluation.at("test").at("loss").get<double>(), 1e-3);
  const auto file = SafetensorsFile::open(std::filesystem::path(job.folder) / "model.safetensors");
  for (const auto& [name, view] : file.tensors()) {
    if (view.dtype != DType::f32) continue;
    EXPECT_TRUE(weight(job, name).allclose(weight(other_job, name), 1e-3, 1e-4)) << name;
  }
}

TEST(RetrainTest, GivesTheSameFromStoredTokensAsThroughTheBackbones) {
  SmallRetraining small;
  const SmallRetraining pooled;
  small.extract({}, TapKeep::time);
  for (const HeadKind head : {HeadKind::bert, HeadKind::mean, HeadKind::concatenation, HeadKind::lstm, HeadKind::nonlocal}) {
    for (const Finetune finetune : {Finetune::none, Finetune::all}) {
      const std::string name = std::string(name_of(head)) + "-" + std::string(name_of(finetune));
      SCOPED_TRACE(name);
      RetrainingOptions options = SmallRetraining::options(head);
      options.finetune = finetune;
      options.epochs = 1;
      const RetrainingJob stored = small.job(options, name), through = pooled.job(options, name);
      const RetrainingOutcome from_tokens = retrain(stored), from_inputs = retrain(through);
      expect_same_but_for_rounding(stored, from_tokens, through, from_inputs);
    }
  }
}

/// A backbone for "dots", with steps of time, that refuses more rows at once than an extraction of small batches gives it.
std::filesystem::path save_of_few_rows(const std::filesystem::path& file) {
  torch::jit::Module module("Net");
  module.register_parameter("weight", at::ones({1}), false);
  module.define(
      "def forward(self, x: Tensor) -> Dict[str, Tensor]:\n"
      "    assert x.size(0) <= 5, \"the backbone ran\"\n"
      "    h = x.flatten(1).slice(1, 0, 60).view([-1, 4, 15]) * self.weight\n"
      "    return {\"a\": h, \"b\": h.slice(2, 0, 3), \"logits\": h.mean(2).slice(1, 0, 3)}\n");
  module.save(file.string());
  return file;
}

TEST(RetrainTest, RunsNoBackboneWhereTokensAreStored) {
  SmallRetraining small;
  const auto few = save_of_few_rows(small.data.folder / "few.pt");
  RetrainingOptions options = SmallRetraining::options(HeadKind::bert);
  options.finetune = Finetune::none;
  small.extract({{"dots", few}}, TapKeep::time);
  const RetrainingOutcome stored = retrain(small.job(options, "stored"));
  ASSERT_EQ(stored.outcome, Outcome::completed) << stored.error;
  EXPECT_EQ(stored.score->evaluation.at("dev").at("rows"), 12);
  small.extract({{"dots", few}});
  const RetrainingOutcome through = retrain(small.job(options, "through"));
  EXPECT_EQ(through.outcome, Outcome::failed);
  EXPECT_THAT(through.error, HasSubstr("the backbone ran"));
}

TEST(RetrainTest, CutsAStepIntoBatchesWithoutChangingIt) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options();
  options.finetune = Finetune::none;
  options.epochs = 1;
  const RetrainingJob whole = small.job(options, "whole");
  options.batch = 4;
  options.accumulate = 4;
  const RetrainingJob cut = small.job(options, "cut");
  ASSERT_EQ(retrain(whole).outcome, Outcome::completed);
  ASSERT_EQ(retrain(cut).outcome, Outcome::completed);
  EXPECT_TRUE(weight(whole, "fusion.layer0.linear.weight").allclose(weight(cut, "fusion.layer0.linear.weight"), 1e-4, 1e-6));
}

TEST(RetrainTest, CutsTheNormOfTheGradient) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options();
  options.clip_norm = 1e-14;  // far below Adam's eps: nothing moves
  options.weight_decay = 0;
  options.fusion_epochs = 0;
  options.epochs = 1;
  const RetrainingJob job = small.job(options, "clipped");
  ASSERT_EQ(retrain(job).outcome, Outcome::completed);
  const auto own = SafetensorsFile::open(small.data.folder / "backbones/dots.safetensors");
  EXPECT_TRUE(weight(job, "backbone.dots.conv2.weight").allclose(copy_tensor(own.at("conv2.weight")), 0, 1e-7));
}

TEST(RetrainTest, TrainsInMixedPrecision) {
  const SmallRetraining small;
  for (const HeadKind head : {HeadKind::linear, HeadKind::mmtm, HeadKind::bert}) {
    RetrainingOptions options = SmallRetraining::options(head);
    options.epochs = 1;
    const RetrainingOutcome plain = retrain(small.job(options, "plain-" + std::string(name_of(head))));
    options.mixed_precision = MixedPrecision::on;
    const RetrainingOutcome outcome = retrain(small.job(options, "mixed-" + std::string(name_of(head))));
    ASSERT_EQ(outcome.outcome, Outcome::completed) << outcome.error;
    EXPECT_TRUE(outcome.score->evaluation.at("multiply_adds").is_number()) << outcome.score->evaluation;
    EXPECT_EQ(outcome.score->evaluation.at("multiply_adds"), plain.score->evaluation.at("multiply_adds"));
  }
}

TEST(RetrainTest, SaysWhereTheLossWasLost) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options();
  options.eta_max = 1e30;
  const RetrainingOutcome outcome = retrain(small.job(options, "lost"));
  EXPECT_EQ(outcome.outcome, Outcome::failed);
  EXPECT_THAT(outcome.error, AllOf(HasSubstr("epoch 1"), HasSubstr("the last finite loss was"), HasSubstr("eta_max")));
}

TEST(RetrainTest, RefusesTheCheckpointOfAnother) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options();
  ASSERT_EQ(retrain(small.job(options, "shared")).outcome, Outcome::completed);
  options.width = 16;
  const RetrainingOutcome outcome = retrain(small.job(options, "shared"));
  EXPECT_EQ(outcome.outcome, Outcome::failed);
  EXPECT_THAT(outcome.error, AllOf(HasSubstr("checkpoint of another retraining"), HasSubstr("a folder of its own")));
}

TEST(RetrainTest, GoesOnFromTheCheckpointBeforeADamagedOne) {
  const SmallRetraining small;
  const RetrainingJob job = small.job(SmallRetraining::options(), "damaged");
  const std::string undisturbed = SmallRetraining::digest_of(retrain(job));
  const std::filesystem::path newest = std::filesystem::path(job.folder) / "checkpoint-4.safetensors";
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::path(job.folder) / "checkpoint-2.safetensors"));
  testing::flip_byte(newest, static_cast<std::streamoff>(std::filesystem::file_size(newest)) - 9);
  std::vector<int> epochs;
  RetrainContext context;
  context.on_epoch = [&](const RetrainingEpoch& epoch) { epochs.push_back(epoch.epoch); };
  EXPECT_EQ(SmallRetraining::digest_of(retrain(job, context)), undisturbed);
  EXPECT_EQ(epochs, (std::vector<int>{3, 4}));
}

TEST(RetrainTest, IsCancelled) {
  const SmallRetraining small;
  std::stop_source cancel;
  cancel.request_stop();
  RetrainContext context;
  context.cancel = cancel.get_token();
  const RetrainingOutcome outcome = retrain(small.job(SmallRetraining::options(), "cancelled"), context);
  EXPECT_EQ(outcome.outcome, Outcome::cancelled);
  EXPECT_FALSE(outcome.score.has_value());
}

/// A backbone for "dots" whose memory runs out with more rows than `limit` while it trains.
std::filesystem::path save_hungry(const std::filesystem::path& file, int limit) {
  torch::jit::Module module("Net");
  module.register_parameter("weight", at::ones({1}), false);
  module.register_attribute("training", c10::BoolType::get(), true);
  module.define("def forward(self, x: Tensor) -> Dict[str, Tensor]:\n"
                "    assert not (self.training and x.size(0) > " + std::to_string(limit) + "), \"CUDA out of memory\"\n"
                "    h = x * self.weight\n"
                "    return {\"a\": h.repeat([1, 4, 1, 1]), \"b\": h, \"logits\": h.mean([2, 3]).repeat([1, 3])}\n");
  module.save(file.string());
  return file;
}

TEST(RetrainTest, HalvesTheRowsWhereMemoryRunsOut) {
  SmallRetraining small;
  small.extract({{"dots", save_hungry(small.data.folder / "hungry.pt", 5)}});
  const RetrainingOutcome outcome = retrain(small.job(SmallRetraining::options(), "halved"));
  ASSERT_EQ(outcome.outcome, Outcome::completed) << outcome.error;
  EXPECT_EQ(outcome.score->batch, 4);
  small.extract({{"dots", save_hungry(small.data.folder / "starving.pt", 0)}});
  const RetrainingOutcome starved = retrain(small.job(SmallRetraining::options(), "starved"));
  EXPECT_EQ(starved.outcome, Outcome::oom);
  EXPECT_THAT(starved.error, HasSubstr("with 1 rows at once"));
}

TEST(RetrainTest, RefusesGatesWithoutStages) {
  SmallRetraining small;
  small.extract({{"dots", save_hungry(small.data.folder / "plain.pt", 99)}});
  const RetrainingOutcome outcome = retrain(small.job(SmallRetraining::options(HeadKind::mmtm), "plain"));
  EXPECT_EQ(outcome.outcome, Outcome::failed);
  EXPECT_THAT(outcome.error, AllOf(HasSubstr("plain.pt"), HasSubstr("stages() -> List[str]")));
}

TEST(RetrainTest, NeedsInputsForAllButStoredFeatures) {
  SmallRetraining small;
  testing::edit_manifest(small.features.file, [](nlohmann::json& document) {
    document.erase("source");
    for (auto& modality : document["modalities"]) modality["backbone"] = {{"kind", "imported"}};
  });
  small.features.digest = read_feature_manifest(small.features.file).digest;
  RetrainingOptions options = SmallRetraining::options();
  const RetrainingOutcome refused = retrain(small.job(options, "imported"));
  EXPECT_EQ(refused.outcome, Outcome::failed);
  EXPECT_THAT(refused.error, AllOf(HasSubstr("names no dataset"), HasSubstr("fusion-data extract")));
  options.finetune = Finetune::none;
  const RetrainingOutcome outcome = retrain(small.job(options, "stored"));
  EXPECT_EQ(outcome.outcome, Outcome::completed) << outcome.error;
}

TEST(RetrainTest, RefusesABackboneThatWasChanged) {
  const SmallRetraining small;
  LeNetOptions other;
  other.blocks = 2;
  other.channels = 4;
  other.height = other.width = 8;
  other.classes = 3;
  LeNet(other, 99).save(small.data.folder / "backbones/dots.safetensors");
  const RetrainingOutcome outcome = retrain(small.job(SmallRetraining::options(), "changed"));
  EXPECT_EQ(outcome.outcome, Outcome::failed);
  EXPECT_THAT(outcome.error, AllOf(HasSubstr("dots.safetensors"), HasSubstr("extract them again")));
}

TEST(RetrainTest, TellsHowFarItIs) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options(HeadKind::mmtm);
  options.batch = 2;
  options.epochs = 40;
  std::vector<RetrainingProgress> told;
  RetrainContext context;
  std::stop_source enough;
  context.cancel = enough.get_token();
  context.on_progress = [&](const RetrainingProgress& progress) {
    told.push_back(progress);
    enough.request_stop();
  };
  (void)retrain(small.job(options, "progress"), context);
  ASSERT_FALSE(told.empty());
  for (const RetrainingProgress& progress : told) {
    EXPECT_EQ(progress.epochs, 41);
    EXPECT_EQ(progress.of_rows, 40);
    EXPECT_GT(progress.rows_per_s, 0);
    EXPECT_GT(progress.eta_s, 0);
  }
}

}  // namespace
}  // namespace fusion
