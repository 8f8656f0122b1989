// What is the stacked engine's own: memory that runs out, and who chooses it. What it computes: pack_trainer_test.cpp.
#include "workers/train/stacked_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <set>

#include "base/error.h"
#include "model/device.h"
#include "tests/workers/train/limited_backend.h"
#include "tests/workers/train/splits.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;

TrialJob job(const std::string& triplets, std::int64_t trial) {
  return TrialJob{TrialId{trial}, 1, architecture_from_text(triplets), 100 + static_cast<std::uint64_t>(trial)};
}

class StackedTrainerTest : public ::testing::Test {
 protected:
  StackedTrainerTest() {
    options_.epochs = 2;
    options_.batch = 16;
    options_.width = 8;
    options_.eta_max = 1e-2;
    options_.multitask = true;
    options_.evaluate_test = true;
    const std::vector<std::string> architectures{R"([[1,0,0]])", R"([[1,0,1],[0,1,2]])", R"([[0,0,2],[1,1,3],[0,1,0]])",
                                                 R"([[0,0,0],[1,1,2,"glu"],[0,1,3,"glu"]])"};
    for (std::int64_t i = 0; i < 6; ++i) jobs_.push_back(job(architectures[static_cast<std::size_t>(i) % architectures.size()], i + 1));
  }

  TrainingData data() const { return {3, train_, dev_, &test_}; }
  std::vector<PackTrial> trials() const {
    std::vector<PackTrial> all;
    for (const TrialJob& one : jobs_) all.push_back({one, {}, {}});
    return all;
  }
  PackContext context(std::map<TrialId, TrialOutcome>& ended) const {
    PackContext context;
    context.order_seed = 5;
    context.on_end = [&ended](TrialOutcome outcome) {
      if (outcome.score) outcome.score->train_s = 0;
      EXPECT_FALSE(ended.contains(outcome.trial)) << "ended twice";
      ended[outcome.trial] = std::move(outcome);
    };
    return context;
  }
  std::map<TrialId, TrialOutcome> train(stacked::Backend<float>& backend, const StackedSettings& settings = {}) const {
    std::map<TrialId, TrialOutcome> ended;
    train_stacked<float>(trials(), options_, data(), context(ended), backend, {}, settings);
    return ended;
  }

  TrainingOptions options_;
  std::vector<TrialJob> jobs_;
  FeatureSplit train_ = test::make_split(131, 1), dev_ = test::make_split(90, 2), test_ = test::make_split(70, 3);
};

TEST_F(StackedTrainerTest, GivesTheSameFiguresHoweverLittleMemoryThereIs) {
  test::LimitedBackend<float> ample(1 << 30);
  const auto expected = train(ample);
  for (const auto& [trial, outcome] : expected) ASSERT_EQ(outcome.outcome, Outcome::completed) << outcome.error;
  EXPECT_EQ(ample.refusals(), 0);
  EXPECT_EQ(ample.taken(), 0) << "memory was not given back";
  int split = 0, refused = 0;
  for (std::int64_t limit = ample.most_taken(); limit > 0; limit -= ample.most_taken() / 23) {
    SCOPED_TRACE(limit);
    test::LimitedBackend<float> backend(limit);
    StackedSettings settings;
    settings.tile_bytes = 4096;
    const auto ended = train(backend, settings);
    ASSERT_EQ(ended.size(), expected.size());
    for (const auto& [trial, outcome] : ended) {
      if (outcome.outcome == Outcome::oom) {
        EXPECT_THAT(outcome.error, HasSubstr("memory ran out on cpu"));
        ++refused;
      } else {
        EXPECT_EQ(outcome, expected.at(trial));
        split += backend.refusals() > 0 ? 1 : 0;
      }
    }
    EXPECT_EQ(backend.taken(), 0);
  }
  EXPECT_GT(split, 20) << "hardly any trial was trained in a pack that had to be split";
  EXPECT_GT(refused, 0) << "the smallest limit fitted everything";
}

TEST_F(StackedTrainerTest, KeepsFeaturesOnTheDeviceOrStreamsThem) {
  test::LimitedBackend<float> all(1 << 30), none(1 << 30), some(1 << 30);
  const auto expected = train(all);
  StackedSettings settings;
  settings.tile_bytes = 4096;
  settings.feature_bytes = 0;
  EXPECT_EQ(train(none, settings), expected);
  settings.feature_bytes = 131 * 14 * 4;  // of train only
  EXPECT_EQ(train(some, settings), expected);
  EXPECT_LT(none.most_taken(), all.most_taken());
}

TEST_F(StackedTrainerTest, FailsEveryTrialWhereTheDeviceBreaks) {
  std::map<TrialId, TrialOutcome> ended;
  PackContext given = context(ended);
  const auto backend = stacked::make_cpu_backend<float>();
  int steps = 0;
  train_stacked<float>(trials(), options_, data(), given, *backend, [&](const TrialJob&, std::int64_t, double) {
    if (++steps == 30) throw ModelError("CUDA: the GPU is gone");
  });
  ASSERT_EQ(ended.size(), jobs_.size());
  for (const auto& [trial, outcome] : ended) {
    EXPECT_EQ(outcome.outcome, Outcome::failed);
    EXPECT_EQ(outcome.error, "CUDA: the GPU is gone");
  }
}

TEST_F(StackedTrainerTest, IsWhatTheInterfaceNames) {
  std::map<TrialId, TrialOutcome> ended;
  PackContext given = context(ended);
  given.engine = "stacked";
  train_pack({{jobs_[0], {}, {}}}, options_, data(), given);
  EXPECT_EQ(ended.at(jobs_[0].trial).engine, "stacked");
  EXPECT_EQ(ended.at(jobs_[0].trial).device, "cpu");
  ended.clear();
  given.engine = "auto";
  train_pack({{jobs_[0], {}, {}}}, options_, data(), given);
  EXPECT_EQ(ended.at(jobs_[0].trial).engine, "plain");
}

TEST_F(StackedTrainerTest, RefusesWhatIsNotThere) {
  std::map<TrialId, TrialOutcome> ended;
  PackContext given = context(ended);
  given.engine = "magic";
  EXPECT_THAT([&] { train_pack(trials(), options_, data(), given); },
              ThrowsMessage<ModelError>(HasSubstr("expected auto, plain, stacked or autograd, got \"magic\"")));
  given.engine = "plain";
  given.device = "cuda:0";
  EXPECT_THAT([&] { train_pack(trials(), options_, data(), given); }, ThrowsMessage<ModelError>(HasSubstr("the device cpu")));
  for (const std::string engine : {"auto", "stacked"}) {
    given.engine = engine;
    given.device = "cuda:" + std::to_string(std::numeric_limits<std::int8_t>::max());
    EXPECT_THAT([&] { train_pack(trials(), options_, data(), given); },
                ThrowsMessage<ModelError>(HasSubstr("device: \"cuda:127\" was asked for, but ")));
  }
  EXPECT_THAT([] { check_training_device("gpu"); }, ThrowsMessage<ModelError>(HasSubstr("expected cpu, cuda or cuda:<number>")));
  EXPECT_EQ(check_training_device("cpu"), std::nullopt);
  EXPECT_EQ(gpu_index("cpu"), -1);
  EXPECT_EQ(gpu_index("cuda"), 0);
  EXPECT_EQ(gpu_index("cuda:12"), 12);
  EXPECT_TRUE(ended.empty());
}

}  // namespace
}  // namespace fusion
