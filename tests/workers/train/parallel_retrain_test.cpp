// Several processes that retrain one model together give what one process gives.
#include <ATen/core/Tensor.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include <cstdio>

#include "base/tensor_files.h"
#include "model/tensor_io.h"
#include "tests/workers/train/forked_ranks.h"
#include "tests/workers/train/small_retraining.h"
#include "workers/train/synchronised_batch_norm.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::ForkedRanks;
using testing::SmallRetraining;
using ::testing::HasSubstr;

/// What a rank tells of an attempt: {outcome, epochs: [...]}; the process dies at the begin of the step after `die_after` epochs.
json attempt(const RetrainingJob& job, const RankGroup* group, int die_after = 0) {
  RetrainContext context;
  context.group = group;
  json told = json::array();
  context.on_epoch = [&](const RetrainingEpoch& epoch) {
    told.push_back(epoch.to_json());
    if (epoch.epoch == die_after) ::kill(::getpid(), SIGKILL);
  };
  return {{"outcome", retrain(job, context).to_json()}, {"epochs", told}};
}

/// The same job with so many processes, in a folder of its own.
std::vector<json> retrain_with(int ranks, const RetrainingJob& job) {
  return ForkedRanks(ranks, [&](const RankGroup* group) { return attempt(job, group); }).wait();
}

at::Tensor weight(const RetrainingJob& job, const std::string& name) {
  return copy_tensor(SafetensorsFile::open(std::filesystem::path(job.folder) / "model.safetensors").at(name));
}

void expect_same_weights(const RetrainingJob& one, const RetrainingJob& other, double tolerance = 1e-4) {
  const auto file = SafetensorsFile::open(std::filesystem::path(one.folder) / "model.safetensors");
  for (const auto& [name, view] : file.tensors()) {
    if (view.dtype != DType::f32) continue;
    EXPECT_TRUE(weight(one, name).allclose(weight(other, name), 1e-3, tolerance))
        << name << ": " << weight(one, name).sub(weight(other, name)).abs().max().item<double>();
  }
}

/// Every epoch's figures; each rank knows all of them.
void expect_same_curve(const std::vector<json>& several, const json& one, double tolerance = 1e-4) {
  for (const json& rank : several) {
    ASSERT_TRUE(rank.is_object() && rank.contains("outcome")) << rank;
    ASSERT_EQ(rank.at("outcome").at("outcome"), "completed") << rank;
    ASSERT_EQ(rank.at("epochs").size(), one.at("epochs").size());
    for (std::size_t i = 0; i < one.at("epochs").size(); ++i) {
      const json &a = one.at("epochs")[i], &b = rank.at("epochs")[i];
      EXPECT_NEAR(a.at("train_loss").get<double>(), b.at("train_loss").get<double>(), tolerance) << "epoch " << i + 1;
      EXPECT_NEAR(a.at("dev_loss").get<double>(), b.at("dev_loss").get<double>(), tolerance) << "epoch " << i + 1;
      EXPECT_EQ(a.at("dev_score"), b.at("dev_score")) << "epoch " << i + 1;
      EXPECT_EQ(a.at("learning_rate"), b.at("learning_rate"));
    }
  }
}

void print_curves(const std::string& name, const json& one, const json& two) {
  std::printf("%s: train loss of one process, of several, dev loss likewise\n", name.c_str());
  for (std::size_t i = 0; i < one.at("epochs").size(); ++i) {
    const json &a = one.at("epochs")[i], &b = two.at("epochs")[i];
    std::printf("  epoch %zu  %.8f  %.8f   %.8f  %.8f\n", i + 1, a.at("train_loss").get<double>(), b.at("train_loss").get<double>(),
                a.at("dev_loss").get<double>(), b.at("dev_loss").get<double>());
  }
}

/// One process against two and three. 40 rows in batches of 16: the last one has 8, which three ranks share as 2, 3 and 3.
void expect_equal(const SmallRetraining& small, const RetrainingOptions& options, const std::string& name, double tolerance = 1e-4) {
  SCOPED_TRACE(name);
  const RetrainingJob alone = small.job(options, name + "-1");
  const json one = retrain_with(1, alone).at(0);
  ASSERT_EQ(one.at("outcome").at("outcome"), "completed") << one;
  for (const int ranks : {2, 3}) {
    SCOPED_TRACE(std::to_string(ranks) + " processes");
    const RetrainingJob job = small.job(options, name + "-" + std::to_string(ranks));
    const std::vector<json> several = retrain_with(ranks, job);
    expect_same_curve(several, one, tolerance);
    if (::testing::Test::HasFatalFailure()) return;
    print_curves(name + " " + std::to_string(ranks), one, several[0]);
    expect_same_weights(alone, job, tolerance);
    EXPECT_EQ(several[1].at("outcome").at("score").at("artifacts").size(), 0U) << "only rank 0 writes";
    EXPECT_EQ(one.at("outcome").at("score").at("test_score"), several[0].at("outcome").at("score").at("test_score"));
    EXPECT_EQ(one.at("outcome").at("score").at("evaluation").at("test").at("confusion"),
              several[0].at("outcome").at("score").at("evaluation").at("test").at("confusion"));
  }
}

TEST(ParallelRetrainTest, EqualsOneProcessWithALinearHead) {
  RetrainingOptions options = SmallRetraining::options();
  options.batchnorm = options.alphas = true;
  options.epochs = 4;
  expect_equal(SmallRetraining(), options, "linear");
}

TEST(ParallelRetrainTest, EqualsOneProcessWithGatedStreamsAndBatchNormalisation) {
  RetrainingOptions options = SmallRetraining::options(HeadKind::mmtm);
  options.batchnorm = true;
  expect_equal(SmallRetraining(), options, "mmtm");
}

TEST(ParallelRetrainTest, EqualsOneProcessWithTemporalHeads) {
  const SmallRetraining small;
  expect_equal(small, SmallRetraining::options(HeadKind::mean), "mean");
  RetrainingOptions options = SmallRetraining::options(HeadKind::bert);
  options.reduction = TokenReduction::frab;
  // Gradients near zero, of which Adam makes whole steps whatever their size: rounding grows tenfold or more with each epoch, on some processors
  // to 3e-3 in the fourth. So one epoch with the backbones at rest, and one in which they are trained too.
  options.epochs = 1;
  expect_equal(small, options, "bert", 2e-3);
}

TEST(ParallelRetrainTest, EqualsOneProcessWithEveryOption) {
  RetrainingOptions options = SmallRetraining::options();
  options.finetune = Finetune::none;
  options.fusion_epochs = 2;
  options.accumulate = 2;
  options.batch = 19;  // the last batch has two rows, which every rank reads
  options.clip_norm = 0.5;
  options.optimiser = Optimiser::adamw;
  options.schedule = RateSchedule::plateau;
  options.plateau_patience = 0;
  expect_equal(SmallRetraining(), options, "options");
}

/// In float64: rows [begin, end) of 12, their outputs and gradients as one process or a rank has them, and running statistics.
struct Normalised {
  at::Tensor y, dx, dweight, dbias, mean, variance;
};

Normalised normalise(std::int64_t begin, std::int64_t end, const RankGroup* group) {
  const auto doubles = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor all = at::linspace(-3, 4, 12 * 3 * 5, doubles).sin().add(0.25).view({12, 3, 5});
  at::Tensor x = all.narrow(0, begin, end - begin).clone().requires_grad_(true);
  at::Tensor weight = at::linspace(0.5, 1.5, 3, doubles).requires_grad_(true), bias = at::linspace(-1, 1, 3, doubles).requires_grad_(true);
  Normalised made{{}, {}, {}, {}, at::zeros({3}, doubles), at::ones({3}, doubles)};
  const SynchronisedBatchNorm synchronised(group);
  made.y = at::batch_norm(x, weight, bias, made.mean, made.variance, true, 0.1, 1e-5, false);
  made.y.mul(all.cos().narrow(0, begin, end - begin)).sum().backward();
  made.dx = x.grad(), made.dweight = weight.grad(), made.dbias = bias.grad();
  return made;
}

double difference(const at::Tensor& a, const at::Tensor& b) { return a.sub(b).abs().max().item<double>(); }

TEST(ParallelRetrainTest, SynchronisedNormalisationIsThatOfAllRowsInFloat64) {
  const std::vector<json> ranks = ForkedRanks(2, [](const RankGroup* group) {
    const std::int64_t begin = group->rank() == 0 ? 0 : 5, end = group->rank() == 0 ? 5 : 12;
    const Normalised all = normalise(0, 12, nullptr), part = normalise(begin, end, group);
    const auto rows = [&](const at::Tensor& of) { return of.narrow(0, begin, end - begin); };
    at::Tensor dweight = part.dweight.clone(), dbias = part.dbias.clone();
    group->sum(dweight);
    group->sum(dbias);
    return json{{"y", difference(part.y, rows(all.y))},     {"dx", difference(part.dx, rows(all.dx))},
                {"dweight", difference(dweight, all.dweight)}, {"dbias", difference(dbias, all.dbias)},
                {"mean", difference(part.mean, all.mean)},     {"variance", difference(part.variance, all.variance)}};
  }).wait();
  for (const json& rank : ranks) {
    ASSERT_TRUE(rank.contains("variance")) << rank;
    for (const auto& [name, value] : rank.items()) EXPECT_LT(value.get<double>(), 1e-12) << name;
  }
}

/// A TorchScript backbone for "dots" with a normalisation over the batch and one within each row.
std::filesystem::path save_normalising(const std::filesystem::path& file) {
  torch::jit::Module module("Net");
  module.register_parameter("weight", at::linspace(0.5, 1.5, 1), false);
  module.register_buffer("mean", at::zeros({1}));
  module.register_buffer("var", at::ones({1}));
  module.register_attribute("training", c10::BoolType::get(), true);
  module.define(
      "def forward(self, x: Tensor) -> Dict[str, Tensor]:\n"
      "    h = torch.batch_norm(x * self.weight, None, None, self.mean, self.var, self.training, 0.1, 1e-5, False)\n"
      "    g = torch.instance_norm(h, None, None, None, None, True, 0.1, 1e-5, False).tanh()\n"
      "    return {\"a\": torch.cat([h, g, h * h, h * g], 1), \"b\": h + g, \"logits\": torch.cat([h, g, h * h], 1).mean([2, 3])}\n");
  module.save(file.string());
  return file;
}

TEST(ParallelRetrainTest, EqualsOneProcessWithNormalisationInsideATorchScriptNetwork) {
  SmallRetraining small;
  small.extract({{"dots", save_normalising(small.data.folder / "normalising.pt")}});
  expect_equal(small, SmallRetraining::options(), "script");
}

TEST(ParallelRetrainTest, LocalStatisticsAreAnotherTrainingInWhichRanksAgree) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options();
  options.batchnorm = true;
  options.batch_statistics = BatchStatistics::local;
  const std::vector<json> two = retrain_with(2, small.job(options, "local"));
  options.batch_statistics = BatchStatistics::synchronised;
  const std::vector<json> synchronised = retrain_with(2, small.job(options, "synchronised"));
  ASSERT_EQ(two.at(0).at("outcome").at("outcome"), "completed") << two[0];
  double furthest = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    const auto loss = [i](const json& rank) { return rank.at("epochs").at(i).at("dev_loss").get<double>(); };
    EXPECT_EQ(loss(two[0]), loss(two[1]));
    furthest = std::max(furthest, std::abs(loss(two[0]) - loss(synchronised[0])));
  }
  EXPECT_GT(furthest, 1e-4);
}

TEST(ParallelRetrainTest, ARankThatIsKilledEndsTheOthersAndAnyNumberGoesOn) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options(HeadKind::mmtm);
  options.epochs = 5;
  const RetrainingJob undisturbed = small.job(options, "undisturbed"), killed = small.job(options, "killed");
  const json one = retrain_with(1, undisturbed).at(0);
  const std::vector<json> ended =
      ForkedRanks(3, [&](const RankGroup* group) { return attempt(killed, group, group->rank() == 1 ? 2 : 0); }).wait();
  EXPECT_TRUE(ended[1].is_null()) << ended[1];
  for (const int rank : {0, 2}) {
    const json& outcome = ended[static_cast<std::size_t>(rank)].at("outcome");
    EXPECT_EQ(outcome.at("outcome"), "preempted") << outcome;
    EXPECT_THAT(outcome.at("error").get<std::string>(), HasSubstr("rank " + std::to_string(rank) + " of 3 could not hear from the others"));
  }
  const std::vector<json> handed_back = ForkedRanks(2, [&](const RankGroup* group) {
    std::stop_source stop;
    RetrainContext context;
    context.group = group;
    context.hand_back = stop.get_token();
    context.on_epoch = [&](const RetrainingEpoch& epoch) {
      if (epoch.epoch == 4 && group->rank() == 1) stop.request_stop();  // one rank is told, all stop
    };
    return json{{"outcome", retrain(killed, context).to_json()}};
  }).wait();
  for (const json& rank : handed_back) {
    EXPECT_EQ(rank.at("outcome").at("outcome"), "preempted") << rank;
    EXPECT_THAT(rank.at("outcome").at("error").get<std::string>(), HasSubstr("it goes on behind epoch 4 of 6"));
  }
  const json last = retrain_with(1, killed).at(0);
  ASSERT_EQ(last.at("outcome").at("outcome"), "completed") << last;
  EXPECT_EQ(last.at("epochs").at(0).at("epoch"), 4) << "told again";
  EXPECT_NEAR(last.at("epochs").back().at("train_loss").get<double>(), one.at("epochs").back().at("train_loss").get<double>(), 1e-4);
  expect_same_weights(undisturbed, killed);
}

TEST(ParallelRetrainTest, ARankThatNeverComesIsNotWaitedForForEver) {
  const std::vector<json> ended = ForkedRanks(
      2,
      [](const RankGroup* group) -> json {
        if (group->rank() == 1) ::kill(::getpid(), SIGSTOP);
        return group->sum(1.0);
      },
      std::chrono::seconds(10)).wait(1);
  EXPECT_THAT(ended[0].value("threw", ""), HasSubstr("rank 0 of 2 could not")) << ended[0];
}

}  // namespace
}  // namespace fusion
