#include "workers/train/autograd_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>

#include "base/error.h"
#include "model/adam.h"
#include "model/torch_compat.h"
#include "tests/workers/train/splits.h"
#include "workers/train/batch_feed.h"
#include "workers/train/schedule.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/cross_entropy_loss.h>

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class TrainerTest : public ::testing::Test {
 protected:
  TrainingData data() const { return {3, train_, dev_, &test_}; }

  FeatureSplit train_ = test::make_split(200, 1), dev_ = test::make_split(90, 2), test_ = test::make_split(70, 3);
};

TrialJob job(const std::string& triplets, std::uint64_t seed = 17) {
  return TrialJob{TrialId{5}, 2, architecture_from_text(triplets), seed};
}

TrainingOptions quick() {
  TrainingOptions options;
  options.epochs = 2;
  options.batch = 16;
  options.width = 8;
  options.eta_max = 1e-2;
  return options;
}

/// Everything of an outcome that must not depend on the clock.
TrialOutcome timeless(TrialOutcome outcome) {
  if (outcome.score) outcome.score->train_s = 0;
  return outcome;
}

TEST_F(TrainerTest, ScoresATrialAndTellsEveryEpoch) {
  TrainingOptions options = quick();
  options.evaluate_test = true;
  std::vector<EpochReport> epochs;
  TrainingContext context;
  context.on_epoch = [&](const EpochReport& report) { epochs.push_back(report); };
  const TrialOutcome outcome = train_trial(job("[[1,0,0],[0,1,1]]"), options, data(), context);
  ASSERT_EQ(outcome.outcome, Outcome::completed) << outcome.error;
  EXPECT_EQ(outcome.trial, TrialId{5});
  EXPECT_EQ(outcome.attempt, 2);
  EXPECT_EQ(outcome.engine, "autograd");
  EXPECT_EQ(outcome.device, "cpu");
  EXPECT_EQ(outcome.torch_version, compat::kTorchVersion);
  const Score& score = *outcome.score;
  ASSERT_EQ(epochs.size(), 2U);
  EXPECT_EQ(score.dev_score, std::max(epochs[0].dev_score, epochs[1].dev_score));
  EXPECT_EQ(epochs[static_cast<std::size_t>(score.best_epoch - 1)].dev_score, score.dev_score);
  EXPECT_EQ(score.train_loss, epochs[1].train_loss);
  EXPECT_LT(epochs[1].train_loss, epochs[0].train_loss);
  EXPECT_EQ(score.dev_score, score.dev_accuracy);
  EXPECT_GT(score.dev_accuracy, 0.4);
  EXPECT_GT(score.dev_macro_f1, 0);
  EXPECT_GT(score.dev_weighted_f1, 0);
  EXPECT_TRUE(score.test_score.has_value());
  EXPECT_EQ(score.parameters, (9 * 8 + 8) + ((5 + 8) * 8 + 8) + (8 * 3 + 3));
}

TEST_F(TrainerTest, OverfitsAFewRows) {
  const FeatureSplit few = test::make_split(32, 8);
  TrainingOptions options = quick();
  options.epochs = 60;
  options.width = 32;
  options.dropout = 0;
  options.restart_epochs = 60;
  const TrialOutcome outcome = train_trial(job("[[1,0,0],[0,1,2]]"), options, {3, few, few});
  ASSERT_TRUE(outcome.score) << outcome.error;
  EXPECT_EQ(outcome.score->dev_accuracy, 1.0);
  EXPECT_LT(outcome.score->train_loss, 0.1);
}

TEST_F(TrainerTest, GivesTheSameBitsForTheSameSeed) {
  TrainingOptions options = quick();
  options.batchnorm = options.alphas = true;
  const TrialOutcome first = train_trial(job("[[1,0,0],[0,1,1]]"), options, data());
  const TrialOutcome again = train_trial(job("[[1,0,0],[0,1,1]]"), options, data());
  ASSERT_TRUE(first.score) << first.error;
  EXPECT_EQ(timeless(first), timeless(again));
  const TrialOutcome other = train_trial(job("[[1,0,0],[0,1,1]]", 18), options, data());
  EXPECT_NE(other.score->train_loss, first.score->train_loss);
}

TEST_F(TrainerTest, DoesNotCareForTheOrderOfAPack) {
  const std::vector<std::string> pack{"[[1,0,0]]", "[[0,1,1],[1,1,0]]", R"([[0,0,0,"glu"],[1,1,2],[0,1,0]])"};
  std::vector<TrialOutcome> forwards, backwards;
  for (const auto& triplets : pack) forwards.push_back(timeless(train_trial(job(triplets), quick(), data())));
  for (auto triplets = pack.rbegin(); triplets != pack.rend(); ++triplets) {
    backwards.insert(backwards.begin(), timeless(train_trial(job(*triplets), quick(), data())));
  }
  EXPECT_EQ(forwards, backwards);
}

TEST_F(TrainerTest, DoesWhatTheReferencesLoopDoes) {
  // The loop of the method notes, written out plainly over the same batches.
  TrainingOptions options = quick();
  options.restart_rule = RestartRule::reference;
  const TrialJob given = job("[[1,0,0],[0,1,1]]");
  FusionNetwork network(given.architecture, test::kWidths, {options.width, 3}, given.seed);
  Adam adam(network.parameters().tensors(), AdamOptions{.weight_decay = options.weight_decay});
  CosineSchedule schedule(options, train_.rows);
  BatchFeed feed(train_, given.architecture, {options.batch, options.width, options.dropout, true, 0, given.seed, train_.rows},
                 c10::Device(c10::kCPU));
  std::vector<double> losses, scores, rates;
  for (int epoch = 0; epoch < options.epochs; ++epoch) {
    double sum = 0;
    feed.begin_epoch(epoch);
    double rate = 0;
    while (const Batch* const batch = feed.next()) {
      adam.clear_gradients();
      const at::Tensor loss = at::cross_entropy_loss(network.forward(batch->joined, batch->masks, true), batch->labels);
      sum += loss.item<double>() * static_cast<double>(batch->rows);
      rate = schedule.next();
      loss.backward();
      adam.step(rate);
    }
    losses.push_back(sum / 200);
    rates.push_back(rate);
    std::vector<at::Tensor> joined{network.join(0, dev_.taps), network.join(1, dev_.taps)};
    const at::Tensor right = at::argmax(network.forward(joined, {}, false), 1).eq(dev_.labels);
    scores.push_back(right.to(at::kDouble).mean().item<double>());
  }
  std::size_t epoch = 0;
  TrainingContext context;
  context.on_epoch = [&](const EpochReport& report) {
    EXPECT_DOUBLE_EQ(report.train_loss, losses[epoch]);
    EXPECT_DOUBLE_EQ(report.dev_score, scores[epoch]);
    EXPECT_EQ(report.learning_rate, rates[epoch]);
    ++epoch;
  };
  train_trial(given, options, data(), context);
  EXPECT_EQ(epoch, 2U);
}

TEST_F(TrainerTest, PutsTheBestEpochsWeightsBack) {
  // The test split is the dev split: its score is computed with the weights that were put back.
  TrainingOptions options = quick();
  options.epochs = 12;
  options.eta_max = 0.3;  // wild enough that the last epoch is not the best
  options.batchnorm = true;
  options.evaluate_test = true;
  std::vector<double> scores;
  TrainingContext context;
  context.on_epoch = [&](const EpochReport& report) { scores.push_back(report.dev_score); };
  const TrialOutcome outcome = train_trial(job("[[1,0,0],[0,1,0]]"), options, {3, train_, dev_, &dev_}, context);
  ASSERT_TRUE(outcome.score) << outcome.error;
  ASSERT_LT(scores.back(), outcome.score->dev_score);
  EXPECT_EQ(*outcome.score->test_score, outcome.score->dev_score);
}

TEST_F(TrainerTest, MultitaskPredictsWithTheSumOfAllLogits) {
  TrainingOptions options = quick();
  const TrialOutcome alone = train_trial(job("[[1,0,0]]"), options, data());
  options.multitask = true;
  const TrialOutcome together = train_trial(job("[[1,0,0]]"), options, data());
  ASSERT_TRUE(together.score) << together.error;
  double constant = 0;
  for (const at::Tensor& logits : train_.logits) constant += at::cross_entropy_loss(logits, train_.labels).item<double>();
  EXPECT_NEAR(together.score->train_loss, alone.score->train_loss + constant, 1e-9);

  FeatureSplit certain = dev_;  // stored logits that know the answer outvote the fusion network
  for (at::Tensor& logits : certain.logits) {
    logits = logits.clone().zero_();
    for (std::int64_t r = 0; r < certain.rows; ++r) logits[r][certain.labels[r].item<std::int64_t>()].fill_(1000.0);
  }
  EXPECT_EQ(train_trial(job("[[1,0,0]]"), options, {3, train_, certain}).score->dev_accuracy, 1.0);
}

TEST_F(TrainerTest, SaysThatMultitaskNeedsLogits) {
  TrainingOptions options = quick();
  options.multitask = true;
  dev_.logits[1] = at::Tensor();
  const TrialOutcome outcome = train_trial(job("[[1,0,0]]"), options, data());
  EXPECT_EQ(outcome.outcome, Outcome::failed);
  EXPECT_FALSE(outcome.score);
  EXPECT_THAT(outcome.error, HasSubstr("split \"dev\": multitask training needs the logits of every backbone, modality 1"));
}

TEST_F(TrainerTest, FailsWhenTheLossIsNotFinite) {
  train_.taps[0][1].data_ptr<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  const TrialOutcome outcome = train_trial(job("[[1,0,0]]"), quick(), data());
  EXPECT_EQ(outcome.outcome, Outcome::failed);
  EXPECT_FALSE(outcome.score);
  EXPECT_THAT(outcome.error, ::testing::MatchesRegex("the training loss became -?nan in epoch 1, step [0-9]+; expected a finite number"));
  const TrialOutcome untouched = train_trial(job("[[0,0,0]]"), quick(), data());  // reads another tap
  EXPECT_EQ(untouched.outcome, Outcome::completed) << untouched.error;
}

TEST_F(TrainerTest, StopsWhenAsked) {
  std::stop_source stop;
  TrainingContext context;
  context.cancel = stop.get_token();
  context.on_epoch = [&](const EpochReport&) { stop.request_stop(); };
  const TrialOutcome outcome = train_trial(job("[[1,0,0]]"), quick(), data(), context);
  EXPECT_EQ(outcome.outcome, Outcome::cancelled);
  EXPECT_EQ(outcome.error, "training was stopped in epoch 2, step 1");
  EXPECT_FALSE(outcome.score);
}

TEST_F(TrainerTest, CallsExhaustedMemoryOom) {
  TrainingOptions options = quick();
  options.width = 1 << 28;  // a second step of 2^56 weights
  const TrialOutcome outcome = train_trial(job("[[1,0,0],[1,0,0]]"), options, data());
  EXPECT_EQ(outcome.outcome, Outcome::oom) << outcome.error;
  EXPECT_THAT(outcome.error, HasSubstr("memory ran out on cpu"));
  EXPECT_THAT(outcome.error, ::testing::Not(HasSubstr("\n")));
}

TEST_F(TrainerTest, SaysWhatDoesNotFit) {
  const auto error = [&](const TrainingOptions& options, const std::string& triplets) {
    const TrialOutcome outcome = train_trial(job(triplets), options, data());
    EXPECT_EQ(outcome.outcome, Outcome::failed);
    return outcome.error;
  };
  EXPECT_THAT(error(quick(), "[[7,0,0]]"), HasSubstr("step 1: modality 0 has taps 0 to 1, got tap 7"));
  TrainingOptions options = quick();
  options.dropout = 1;
  options.epochs = 0;
  EXPECT_THAT(error(options, "[[1,0,0]]"), ::testing::AllOf(HasSubstr("dropout"), HasSubstr("epochs")));
  options = quick();
  options.batchnorm = true;
  options.batch = 1;
  EXPECT_THAT(error(options, "[[1,0,0]]"), HasSubstr("at least two rows"));
  train_.labels[3].fill_(3);
  EXPECT_THAT(error(quick(), "[[1,0,0]]"), HasSubstr("split \"train\": labels: expected 0 to 2, got 3"));
}

TEST_F(TrainerTest, LeavesALoneLastRowOutOfBatchNormalisation) {
  const FeatureSplit odd = test::make_split(33, 9);
  TrainingOptions options = quick();
  options.batchnorm = true;
  const TrialOutcome outcome = train_trial(job("[[1,0,0]]"), options, {3, odd, dev_});
  EXPECT_EQ(outcome.outcome, Outcome::completed) << outcome.error;
}

TEST_F(TrainerTest, ThrowsForADeviceThatIsNotThere) {
  TrainingContext context;
  context.device = "cuda:99";
  EXPECT_THAT([&] { train_trial(job("[[1,0,0]]"), quick(), data(), context); },
              ThrowsMessage<ModelError>(HasSubstr("\"cuda:99\" was asked for")));
}

TEST_F(TrainerTest, SharesWeightsThroughTheBank) {
  TrainingOptions options = quick();
  options.weight_sharing = true;
  WeightBank bank;
  TrainingContext context;
  context.bank = &bank;
  const TrialOutcome first = train_trial(job("[[1,0,0],[0,1,1]]"), options, data(), context);
  EXPECT_EQ(bank.keys(), (std::vector<std::string>{"0.L_9_8.A_relu", "1.L_13_8.A_sigmoid"}));
  const TrialOutcome second = train_trial(job("[[1,0,0],[0,1,1]]"), options, data(), context);
  EXPECT_LT(second.score->train_loss, first.score->train_loss);  // it began where the first one ended
  context.bank = nullptr;
  EXPECT_EQ(timeless(train_trial(job("[[1,0,0],[0,1,1]]"), options, data(), context)), timeless(first));
}

TEST(WeightBankTest, LoadsWhatItStored) {
  const Architecture architecture = architecture_from_text(R"([[1,0,0],[0,1,1,"glu"]])");
  FusionOptions options{8, 3, true, true};
  const FusionNetwork from(architecture, test::kWidths, options, 1);
  from.buffers().at("layer0.bn.running_mean").fill_(0.25);
  WeightBank bank;
  bank.store(from);
  EXPECT_EQ(bank.keys(), (std::vector<std::string>{"0.L_9_8.A_relu", "1.G_13_8.A_sigmoid"}));
  FusionNetwork into(architecture, test::kWidths, options, 2);
  EXPECT_EQ(bank.load(into).size(), 2U);
  for (const std::string name : {"layer0.linear.weight", "layer1.gate.weight", "layer1.linear.bias"}) {
    EXPECT_TRUE(into.parameters().at(name).equal(from.parameters().at(name))) << name;
  }
  EXPECT_TRUE(into.buffers().at("layer0.bn.running_mean").equal(from.buffers().at("layer0.bn.running_mean")));
  EXPECT_FALSE(into.parameters().at("classifier.weight").equal(from.parameters().at("classifier.weight")));
  EXPECT_FALSE(into.parameters().at("layer0.alpha").equal(from.parameters().at("layer0.alpha")));

  options.batchnorm = false;  // the same key, other tensors
  FusionNetwork without(architecture, test::kWidths, options, 2);
  EXPECT_TRUE(bank.load(without).empty());
}

}  // namespace
}  // namespace fusion
