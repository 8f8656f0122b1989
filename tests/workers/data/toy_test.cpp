#include "workers/data/toy.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <span>

#include "base/error.h"
#include "base/random.h"
#include "model/adam.h"
#include "model/device.h"
#include "model/fusion_network.h"
#include "tests/workers/data/small_dataset.h"
#include "workers/data/features.h"
#include "workers/data/train_backbone.h"

namespace fusion {
namespace {

using testing::TemporaryFolder;

TEST(ToyTest, IsMadeOfItsSeedAlone) {
  const TemporaryFolder a, b, c;
  const ToyOptions options{60, 20, 20, 3};
  ToyOptions other = options;
  other.seed = 4;
  const std::string digest = make_toy(a.path(), options);
  EXPECT_EQ(make_toy(b.path(), options), digest);
  EXPECT_NE(make_toy(c.path(), other), digest);
}

TEST(ToyTest, ARowDoesNotDependOnHowManyThereAre) {
  const TemporaryFolder few, many;
  make_toy(few.path(), {20, 5, 5, 1});
  make_toy(many.path(), {50, 5, 5, 1});
  const Dataset a = Dataset::open(few / "dataset.json"), b = Dataset::open(many / "dataset.json");
  for (std::size_t m = 0; m < 2; ++m) EXPECT_TRUE(a.batch(m, "train", 0, 20).equal(b.batch(m, "train", 0, 20)));
  EXPECT_TRUE(a.labels("train").equal(b.labels("train").slice(0, 0, 20)));
}

TEST(ToyTest, RefusesNoRows) {
  const TemporaryFolder folder;
  EXPECT_THAT(testing::message_of<ConfigError>([&] { make_toy(folder.path(), {10, 0, 5, 1}); }),
              ::testing::HasSubstr("dev rows: expected at least 1, got 0"));
}

/// Accuracy on dev of a fusion network trained for a while, in the way a worker trains (no dropout).
double fused_accuracy(const FeatureSet& features, const Architecture& architecture, int epochs) {
  FusionOptions options;
  options.classes = features.spec().classes;
  FusionNetwork network(architecture, tap_widths(features.spec()), options, 1);
  Adam adam(network.parameters().tensors());
  const FeatureSplit& train = features.split("train");
  const FeatureSplit& dev = features.split("dev");
  const auto joined = [&](const FeatureSplit& split, const at::Tensor& rows) {
    std::vector<std::vector<at::Tensor>> taps;
    for (const auto& modality : split.taps) {
      auto& picked = taps.emplace_back();
      for (const at::Tensor& tap : modality) picked.push_back(tap.index_select(0, rows));
    }
    std::vector<at::Tensor> inputs;
    for (std::size_t i = 0; i < architecture.steps.size(); ++i) inputs.push_back(network.join(i, taps));
    return inputs;
  };
  std::vector<std::int64_t> order(static_cast<std::size_t>(train.rows));
  std::iota(order.begin(), order.end(), 0);
  Rng rng(7);
  for (int epoch = 0; epoch < epochs; ++epoch) {
    rng.shuffle(std::span(order));
    for (std::int64_t begin = 0; begin + 32 <= train.rows; begin += 32) {
      const at::Tensor rows = at::from_blob(order.data() + begin, {32}, at::TensorOptions().dtype(c10::kLong));
      const at::Tensor logits = network.forward(joined(train, rows), {}, true);
      at::cross_entropy_loss(logits, train.labels.index_select(0, rows)).backward();
      adam.step(3e-3);
      adam.clear_gradients();
    }
  }
  const at::NoGradGuard no_grad;
  const at::Tensor logits = network.forward(joined(dev, at::arange(dev.rows)), {}, false);
  return static_cast<double>(logits.argmax(1).eq(dev.labels).sum().item<std::int64_t>()) / static_cast<double>(dev.rows);
}

/// The properties that make the toy set worth searching, on a smaller one (docs/toy.md has the figures of the whole).
TEST(ToyTest, FusingBeatsBothModalitiesAndLateFusionAndTapsMatter) {
  prepare_training_thread();
  const TemporaryFolder folder;
  make_toy(folder.path(), {4000, 800, 800, 0});
  const Dataset dataset = Dataset::open(folder / "dataset.json");
  BackboneTraining training;
  training.epochs = 5;
  for (std::size_t m = 0; m < 2; ++m) {
    train_backbone(dataset, m, training, folder / ("backbones/" + dataset.manifest().modalities[m].name + ".safetensors"), false);
  }
  const Baselines baselines = extract_features(dataset, {}).manifest.baselines;
  const auto features = FeatureSet::open(folder / "dataset.json");
  const double audio = baselines.unimodal.at("audio").at("dev"), image = baselines.unimodal.at("image").at("dev");
  const double late = std::max(baselines.sum_logits.at("dev"), baselines.sum_log_softmax.at("dev"));
  const double early = fused_accuracy(*features, Architecture{{{{0, 0}}}}, 4);
  const double found = fused_accuracy(*features, Architecture{{{{3, 2}}, {{1, 0}}}}, 20);
  std::printf("audio %.3f image %.3f late fusion %.3f first taps %.3f fused %.3f\n", audio, image, late, early, found);
  EXPECT_GT(image, 0.4);
  EXPECT_LT(audio, 0.76);
  EXPECT_GT(found, audio + 0.05);
  EXPECT_GT(found, image + 0.05);
  EXPECT_GT(found, late + 0.05);
  EXPECT_GT(found, early + 0.10);
}

}  // namespace
}  // namespace fusion
