// What every engine that trains packs is held to, once for each of them.
#include "workers/train/plain_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <optional>

#include "base/error.h"
#include "tests/workers/train/oracle.h"
#include "tests/workers/train/splits.h"
#include "workers/train/autograd_trainer.h"
#include "workers/train/stacked_trainer.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kOrderSeed = 77;

TrialJob job(const std::string& triplets, std::int64_t trial = 1, std::uint64_t seed = 17) {
  return TrialJob{TrialId{trial}, 2, architecture_from_text(triplets), seed};
}

TrainingOptions quick() {
  TrainingOptions options;
  options.epochs = 3;
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

/// An engine and what it runs on.
struct Engine {
  std::string name;  ///< for people
  std::string engine, device;
  bool blocks = false;    ///< stacked on the CPU, by the block programs that a GPU runs
  bool streamed = false;  ///< stacked, with features in tiles of two batches

  template <typename T>
  std::unique_ptr<stacked::Backend<T>> backend() const {
    if (device != "cpu") return stacked::make_cuda_backend<T>(0);
    return stacked::make_cpu_backend<T>(blocks ? stacked::CpuProducts::blocks : stacked::CpuProducts::torch);
  }
};
std::string name_of_engine(const ::testing::TestParamInfo<Engine>& info) { return info.param.name; }
void PrintTo(const Engine& engine, std::ostream* out) { *out << engine.name; }

class PackTrainerTest : public ::testing::TestWithParam<Engine> {
 protected:
  void SetUp() override {
    if (GetParam().device != "cpu" && stacked::cuda_devices() == 0) GTEST_SKIP() << "there is no GPU that this program can use";
  }

  TrainingData data() const { return {3, train_, dev_, &test_}; }

  /// Trains through the interface, all at once; what ended by trial.
  std::map<TrialId, TrialOutcome> train(const std::vector<TrialJob>& jobs, const TrainingOptions& options, PackContext context = {}) {
    std::vector<PackTrial> trials;
    for (const TrialJob& j : jobs) trials.push_back({j, {}, {}});
    return train(std::move(trials), options, std::move(context));
  }
  std::map<TrialId, TrialOutcome> train(std::vector<PackTrial> trials, const TrainingOptions& options, PackContext context = {}) {
    std::map<TrialId, TrialOutcome> ended;
    context.order_seed = kOrderSeed;
    context.on_end = [&](TrialOutcome outcome) {
      EXPECT_FALSE(ended.contains(outcome.trial)) << "ended twice";
      ended[outcome.trial] = timeless(std::move(outcome));
    };
    run<float>(std::move(trials), options, context);
    return ended;
  }
  template <typename T>
  void run(std::vector<PackTrial> trials, const TrainingOptions& options, const PackContext& context, const StepObserver& on_step = {}) {
    const Engine& engine = GetParam();
    if (engine.engine == "plain") return train_plain<T>(std::move(trials), options, data(), context, on_step);
    StackedSettings settings;
    if (engine.streamed) {
      settings.feature_bytes = 0;
      settings.tile_bytes = 2 * options.batch * 4 * 20;
    }
    const auto backend = engine.backend<T>();
    train_stacked<T>(std::move(trials), options, data(), context, *backend, on_step, settings);
  }
  TrialOutcome train_alone(const TrialJob& one, const TrainingOptions& options) { return train({one}, options).at(one.trial); }

  template <typename T>
  std::vector<double> step_losses(const TrialJob& one, const TrainingOptions& options) {
    std::vector<double> losses;
    PackContext context;
    context.order_seed = kOrderSeed;
    context.on_end = [](const TrialOutcome& outcome) { EXPECT_EQ(outcome.outcome, Outcome::completed) << outcome.error; };
    run<T>({{one, {}, {}}}, options, context, [&](const TrialJob&, std::int64_t, double loss) { losses.push_back(loss); });
    return losses;
  }

  FeatureSplit train_ = test::make_split(331, 1), dev_ = test::make_split(90, 2), test_ = test::make_split(70, 3);
};

struct Variant {
  std::string name;
  TrainingOptions options;
};

/// Every option that changes a step, alone and together.
std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (int bits = 0; bits < 8; ++bits) {
    TrainingOptions options = quick();
    options.batchnorm = (bits & 1) != 0;
    options.alphas = (bits & 2) != 0;
    options.dropout = (bits & 4) != 0 ? 0.5 : 0;
    all.push_back({std::string(options.batchnorm ? "batchnorm " : "") + (options.alphas ? "alphas " : "") +
                       (options.dropout > 0 ? "dropout" : ""),
                   options});
  }
  Variant other{"width 16, decay, reference restarts, no shuffling", quick()};
  other.options.width = 16;
  other.options.weight_decay = 0.05;
  other.options.restart_rule = RestartRule::reference;
  other.options.shuffle = false;
  all.push_back(other);
  other.name = "one wide batch";
  other.options.batch = 1000;
  other.options.width = 33;
  all.push_back(other);
  return all;
}

const std::vector<std::string> kArchitectures{
    R"([[1,0,0]])", R"([[1,0,1],[0,1,2]])", R"([[0,0,2],[1,1,3],[0,1,0]])", R"([[1,1,1],[0,0,0],[1,0,1],[0,1,0]])",
    R"([[1,0,1,"glu"],[0,1,0]])", R"([[0,0,0],[1,1,2,"glu"],[0,1,3,"glu"]])"};

TEST_P(PackTrainerTest, TakesTheOraclesStepsInSinglePrecision) {
  for (const Variant& variant : variants()) {
    for (const std::string& triplets : kArchitectures) {
      SCOPED_TRACE(triplets + " " + variant.name);
      TrainingOptions options = variant.options;
      options.epochs = 1;
      const auto losses = step_losses<float>(job(triplets), options);
      const auto expected = test::Oracle(job(triplets), options, data(), kOrderSeed, at::kFloat).epoch(20);
      ASSERT_GE(losses.size(), expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(losses[i], expected[i], 1e-5) << "step " << i;
    }
  }
}

TEST_P(PackTrainerTest, TakesTheOraclesStepsInDoublePrecision) {
  for (const Variant& variant : variants()) {
    for (const std::string& triplets : kArchitectures) {
      SCOPED_TRACE(triplets + " " + variant.name);
      TrainingOptions options = variant.options;
      options.epochs = 2;
      const auto losses = step_losses<double>(job(triplets), options);
      test::Oracle oracle(job(triplets), options, data(), kOrderSeed, at::kDouble);
      std::vector<double> expected = oracle.epoch();
      const std::vector<double> second = oracle.epoch();
      expected.insert(expected.end(), second.begin(), second.end());
      ASSERT_EQ(losses.size(), expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(losses[i], expected[i], 1e-10) << "step " << i;
    }
  }
}

TEST_P(PackTrainerTest, ScoresAsTheAutogradEngineDoes) {
  TrainingOptions options = quick();
  options.evaluate_test = true;
  for (const bool multitask : {false, true}) {
    for (const Metric metric : {Metric::accuracy, Metric::weighted_f1}) {
      options.multitask = multitask;
      options.metric = metric;
      options.batchnorm = multitask;
      for (const std::string& triplets : kArchitectures) {
        SCOPED_TRACE(triplets);
        std::vector<EpochReport> epochs, oracles_epochs;
        PackContext context;
        context.on_epoch = [&](const TrialJob& of, const EpochReport& report) {
          EXPECT_EQ(of.trial, TrialId{1});
          epochs.push_back(report);
        };
        const TrialOutcome outcome = train(std::vector<TrialJob>{job(triplets)}, options, context).at(TrialId{1});
        TrainingContext oracles;
        oracles.order_seed = kOrderSeed;
        oracles.on_epoch = [&](const EpochReport& report) { oracles_epochs.push_back(report); };
        const TrialOutcome expected = train_trial(job(triplets), options, data(), oracles);
        ASSERT_EQ(outcome.outcome, Outcome::completed) << outcome.error;
        EXPECT_EQ(outcome.engine, GetParam().engine);
        EXPECT_EQ(outcome.device, GetParam().device);
        EXPECT_EQ(outcome.attempt, 2);
        ASSERT_EQ(epochs.size(), oracles_epochs.size());
        for (std::size_t e = 0; e < epochs.size(); ++e) {
          EXPECT_EQ(epochs[e].epoch, oracles_epochs[e].epoch);
          EXPECT_NEAR(epochs[e].train_loss, oracles_epochs[e].train_loss, 1e-4);
          EXPECT_NEAR(epochs[e].dev_score, oracles_epochs[e].dev_score, 0.012);  // a row of 90
          EXPECT_EQ(epochs[e].learning_rate, oracles_epochs[e].learning_rate);
        }
        EXPECT_NEAR(outcome.score->dev_score, expected.score->dev_score, 0.012);
        EXPECT_NEAR(*outcome.score->test_score, *expected.score->test_score, 0.015);
        EXPECT_EQ(outcome.score->parameters, expected.score->parameters);
      }
    }
  }
}

TEST_P(PackTrainerTest, GivesTheSameBitsAloneInAPackAndInAnyOrder) {
  for (const bool batchnorm : {false, true}) {
    TrainingOptions options = quick();
    options.batchnorm = batchnorm;
    std::vector<TrialJob> jobs;
    for (std::size_t i = 0; i < kArchitectures.size(); ++i) {
      jobs.push_back(job(kArchitectures[i], static_cast<std::int64_t>(i + 1), 100 + i));
    }
    const auto together = train(jobs, options);
    ASSERT_EQ(together.size(), jobs.size());
    std::reverse(jobs.begin(), jobs.end());
    EXPECT_EQ(train(jobs, options), together);
    for (const TrialJob& one : jobs) EXPECT_EQ(train_alone(one, options), together.at(one.trial));
  }
}

TEST_P(PackTrainerTest, FillsTheRoomOfThoseThatEndedWithOthers) {
  std::vector<PackTrial> trials, rest;
  std::map<TrialId, TrialOutcome> expected;
  for (std::size_t i = 0; i < 12; ++i) {
    const TrialJob one = job(kArchitectures[i % kArchitectures.size()], static_cast<std::int64_t>(i + 1), 100 + i);
    expected[one.trial] = train_alone(one, quick());
    (i < 2 ? trials : rest).push_back({one, {}, {}});
  }
  std::stop_source prune;
  trials[0].prune = prune.get_token();  // leaves after one epoch: from then on two trials are at different epochs
  expected.erase(TrialId{1});
  PackContext context;
  context.on_epoch = [&](const TrialJob& of, const EpochReport&) {
    if (of.trial == TrialId{1}) prune.request_stop();
  };
  context.more = [&](std::size_t room) {
    EXPECT_GE(room, 1U);
    EXPECT_LE(room, 2U);
    std::vector<PackTrial> some;
    for (; !rest.empty() && some.size() < room; rest.pop_back()) some.push_back(rest.back());
    return some;
  };
  auto ended = train(std::move(trials), quick(), context);
  EXPECT_EQ(ended.at(TrialId{1}).outcome, Outcome::pruned);
  EXPECT_THAT(ended.at(TrialId{1}).error, HasSubstr("pruned in epoch 2"));
  EXPECT_EQ(ended.at(TrialId{1}).score->best_epoch, 1);
  ended.erase(TrialId{1});
  EXPECT_EQ(ended, expected);
}

TEST_P(PackTrainerTest, LeavesTheOthersUnharmedWhenATrialFails) {
  train_.taps[0][1].data_ptr<float>()[7] = std::numeric_limits<float>::quiet_NaN();
  const TrialJob reads_it = job("[[1,0,0]]", 1), does_not = job("[[0,0,1],[0,1,0]]", 2), no_such_tap = job("[[5,0,0]]", 3);
  const TrialOutcome alone = train_alone(does_not, quick());
  ASSERT_EQ(alone.outcome, Outcome::completed);
  const auto ended = train({reads_it, does_not, no_such_tap}, quick());
  EXPECT_EQ(ended.at(TrialId{2}), alone);
  EXPECT_EQ(ended.at(TrialId{1}).outcome, Outcome::failed);
  EXPECT_THAT(ended.at(TrialId{1}).error, HasSubstr("the training loss became nan in epoch 1, step"));
  EXPECT_FALSE(ended.at(TrialId{1}).score.has_value());
  EXPECT_EQ(ended.at(TrialId{3}).outcome, Outcome::failed);
  EXPECT_THAT(ended.at(TrialId{3}).error, HasSubstr("modality 0 has taps 0 to 1, got tap 5"));
}

TEST_P(PackTrainerTest, NamesALearningRateThatDiverges) {
  TrainingOptions options = quick();
  options.eta_max = 1e30;
  options.dropout = 0;
  const TrialOutcome outcome = train_alone(job("[[1,0,3],[0,1,3],[0,0,3]]"), options);
  EXPECT_EQ(outcome.outcome, Outcome::failed);
  EXPECT_THAT(outcome.error, HasSubstr("the training loss became"));
}

TEST_P(PackTrainerTest, LeavesTheOthersUnharmedWhenATrialDiverges) {
  train_.taps[0][1].mul_(3e38);  // many of them become infinite, and the rest cannot be added
  TrainingOptions options = quick();
  options.dropout = 0;
  const TrialJob overflows = job("[[1,0,3],[0,1,3],[1,0,3]]", 1), does_not = job("[[0,0,3],[0,1,0],[0,0,1]]", 2);
  const TrialOutcome alone = train_alone(does_not, options);
  ASSERT_EQ(alone.outcome, Outcome::completed);
  const auto ended = train({overflows, does_not}, options);
  EXPECT_EQ(ended.at(TrialId{1}).outcome, Outcome::failed);
  EXPECT_EQ(ended.at(TrialId{2}), alone);
}

TEST_P(PackTrainerTest, NamesATrialForWhichThereIsNoMemory) {
  TrainingOptions options = quick();
  options.width = 1 << 22;  // a square of these is 64 terabytes
  const auto ended = train({job("[[1,0,0],[0,1,1]]", 1)}, options);
  EXPECT_EQ(ended.at(TrialId{1}).outcome, Outcome::oom);
  EXPECT_THAT(ended.at(TrialId{1}).error, HasSubstr("memory ran out on "));
}

std::int64_t resident_pages() {
  std::int64_t size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return resident;
}

TEST_P(PackTrainerTest, NeedsNoMoreMemoryForManyPacksThanForAFew) {
  TrainingOptions options = quick();
  options.epochs = 1;
  const auto some_packs = [&](int packs) {
    for (int p = 0; p < packs; ++p) {
      std::vector<TrialJob> jobs;
      for (std::int64_t i = 0; i < 4; ++i) {
        jobs.push_back(job(kArchitectures[static_cast<std::size_t>(p + i) % kArchitectures.size()], i + 1));
      }
      train(jobs, options);
    }
  };
  const int many = GetParam().engine == "plain" ? 1000 : 60;
  some_packs(many / 3);
  const std::int64_t before = resident_pages();
  some_packs(many);
  EXPECT_LT(resident_pages() - before, 512);  // two megabytes
}

TEST_P(PackTrainerTest, StopsWhatIsCancelled) {
  std::stop_source cancel;
  PackContext context;
  context.on_epoch = [&](const TrialJob& of, const EpochReport&) {
    if (of.trial == TrialId{2}) cancel.request_stop();
  };
  const auto ended =
      train({PackTrial{job("[[1,0,0]]", 1), cancel.get_token(), {}}, PackTrial{job("[[1,0,0]]", 2), {}, {}}}, quick(), context);
  EXPECT_EQ(ended.at(TrialId{1}).outcome, Outcome::cancelled);
  EXPECT_EQ(ended.at(TrialId{1}).error, "training was stopped in epoch 2, step 1");
  EXPECT_EQ(ended.at(TrialId{2}).outcome, Outcome::completed);
}

TEST_P(PackTrainerTest, FailsEveryTrialForFeaturesThatDoNotFit) {
  TrainingOptions options = quick();
  options.multitask = true;
  train_.logits[1] = at::Tensor();
  const auto ended = train({job("[[1,0,0]]", 1), job("[[0,0,0]]", 2)}, options);
  for (const std::int64_t trial : {1, 2}) {
    EXPECT_EQ(ended.at(TrialId{trial}).outcome, Outcome::failed);
    EXPECT_THAT(ended.at(TrialId{trial}).error, HasSubstr("modality 1 has none"));
  }
}

TEST_P(PackTrainerTest, ReadsFeaturesInHalfTheBytes) {
  const auto converted = [](const FeatureSplit& split, bool back) {
    FeatureSplit other = split;
    for (auto& of_modality : other.taps) {
      for (at::Tensor& tap : of_modality) tap = back ? tap.to(at::kBFloat16).to(at::kFloat) : tap.to(at::kBFloat16);
    }
    return other;
  };
  const FeatureSplit train_was = train_, dev_was = dev_;
  train_ = converted(train_was, true), dev_ = converted(dev_was, true);  // the same numbers in the wide format
  const TrialOutcome wide = train_alone(job("[[1,0,0],[0,1,1]]"), quick());
  train_ = converted(train_was, false), dev_ = converted(dev_was, false);
  EXPECT_EQ(train_alone(job("[[1,0,0],[0,1,1]]"), quick()), wide);
}

TEST_P(PackTrainerTest, SharesWeightsOneTrialAfterTheOther) {
  TrainingOptions options = quick();
  options.weight_sharing = true;
  WeightBank bank, oracles_bank;
  PackContext context;
  context.bank = &bank;
  const auto ended = train({job("[[1,0,0],[0,1,1]]", 1, 5), job("[[1,0,0],[0,1,1]]", 2, 6)}, options, context);
  TrainingContext oracles;
  oracles.order_seed = kOrderSeed;
  oracles.bank = &oracles_bank;
  for (const std::int64_t trial : {1, 2}) {
    const TrialOutcome expected = train_trial(job("[[1,0,0],[0,1,1]]", trial, 4 + static_cast<std::uint64_t>(trial)), options, data(), oracles);
    EXPECT_NEAR(ended.at(TrialId{trial}).score->train_loss, expected.score->train_loss, 1e-4);
  }
  EXPECT_EQ(bank.keys(), oracles_bank.keys());
  EXPECT_NE(ended.at(TrialId{2}), train_alone(job("[[1,0,0],[0,1,1]]", 2, 6), quick()));
}

TEST_P(PackTrainerTest, LeavesOutALastBatchOfOneRowWithBatchNormalisation) {
  train_ = test::make_split(97, 4);
  TrainingOptions options = quick();
  options.batchnorm = true;
  options.epochs = 1;
  EXPECT_EQ(step_losses<float>(job("[[1,0,0]]"), options).size(), 6U);
  options.batchnorm = false;
  EXPECT_EQ(step_losses<float>(job("[[1,0,0]]"), options).size(), 7U);
}

INSTANTIATE_TEST_SUITE_P(Plain, PackTrainerTest, ::testing::Values(Engine{"plain", "plain", "cpu"}), name_of_engine);
INSTANTIATE_TEST_SUITE_P(Stacked, PackTrainerTest,
                         ::testing::Values(Engine{"torch", "stacked", "cpu"}, Engine{"blocks", "stacked", "cpu", true},
                                           Engine{"streamed", "stacked", "cpu", false, true}),
                         name_of_engine);
INSTANTIATE_TEST_SUITE_P(Gpu, PackTrainerTest,
                         ::testing::Values(Engine{"resident", "stacked", "cuda:0"}, Engine{"streamed", "stacked", "cuda:0", false, true}),
                         name_of_engine);

}  // namespace
}  // namespace fusion
