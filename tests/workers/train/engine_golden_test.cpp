// The reference's own numbers, met by the plain engine: networks it can train, on features that are given.
#include "tests/workers/train/golden_step_model.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "model/device.h"
#include "model/torch_compat.h"
#include "workers/train/plain_network.h"

namespace fusion {
namespace {

using golden::Case;
using golden::expect_close;
using golden::StepModel;
using golden::StepOptimiser;
using golden::Tolerance;

/// Batches as the engine reads them.
class Rows {
 public:
  Rows(const std::vector<std::vector<at::Tensor>>& taps, const at::Tensor& labels) {
    split_.rows = labels.size(0);
    split_.labels = labels.contiguous();
    split_.logits.resize(taps.size());
    std::vector<std::vector<bool>> used;
    for (const auto& of_modality : taps) {
      used.emplace_back(of_modality.size(), true);
      auto& of_split = split_.taps.emplace_back();
      for (const at::Tensor& tap : of_modality) of_split.push_back(tap.detach().contiguous());
    }
    tile_.emplace(split_, used, split_.rows);
    tile_->fill(0, split_.rows);
  }
  const FeatureTile<float>& tile() const { return *tile_; }
  std::int64_t count() const { return split_.rows; }

 private:
  FeatureSplit split_;
  std::optional<FeatureTile<float>> tile_;
};

TapWidths widths_of(const std::vector<std::vector<at::Tensor>>& taps) {
  TapWidths widths;
  for (const auto& of_modality : taps) {
    auto& of_widths = widths.emplace_back();
    for (const at::Tensor& tap : of_modality) of_widths.push_back(tap.size(1));
  }
  return widths;
}

plain::AdamStep<float> adam_step(const AdamOptions& options, int t, double rate) {
  return {static_cast<float>(options.beta1),
          static_cast<float>(1 - options.beta1),
          static_cast<float>(options.beta2),
          static_cast<float>(1 - options.beta2),
          static_cast<float>(options.eps),
          static_cast<float>(options.weight_decay),
          static_cast<float>(1 / std::sqrt(1 - std::pow(options.beta2, t))),
          static_cast<float>(rate / (1 - std::pow(options.beta1, t)))};
}

void fusion_forward(const Case& given) {
  std::vector<std::vector<at::Tensor>> taps;
  for (const std::string modality : {"audio", "image"}) {
    auto& of_modality = taps.emplace_back();
    for (int i = 0; given.has("tap." + modality + std::to_string(i)); ++i) {
      of_modality.push_back(given.tensor("tap." + modality + std::to_string(i)));
    }
  }
  const FusionOptions options{given.facts.at("inner_representation_size"), given.facts.at("num_outputs"),
                              given.facts.at("batchnorm"), given.facts.at("alphas")};
  FusionNetwork weights(architecture_from_triplets(given.facts.at("conf")), widths_of(taps), options, 0);
  load_tensors(given.tensors, weights.parameters().named());
  load_tensors(given.tensors, weights.buffers().named());
  const at::Tensor expected = given.tensor("expected.logits");
  const at::Tensor labels = at::zeros({expected.size(0)}, at::kLong);
  const Rows rows(taps, labels);
  plain::Network<float> network(weights, widths_of(taps), 0, 0);
  plain::Workspace<float> work;
  const Tolerance tolerance = Tolerance::read(given.facts.at("tolerance"));
  if (given.facts.value("mode", "eval").rfind("train", 0) == 0) {  // by batch statistics: the loss is what can be seen of it
    plain::AdamStep<float> still = adam_step({}, 1, 0);
    const double loss = network.train(rows.tile(), 0, rows.count(), 0, still, work) / static_cast<double>(rows.count());
    EXPECT_NEAR(loss, at::cross_entropy_loss(expected, labels).item<double>(), tolerance.atol + tolerance.rtol * std::abs(loss));
    return;
  }
  const at::Tensor got = at::zeros(expected.sizes(), at::kFloat);
  const std::int64_t stride = plain::padded(options.classes);
  const float* const logits = network.logits(rows.tile(), 0, rows.count(), work);
  for (std::int64_t r = 0; r < rows.count(); ++r) {
    std::copy_n(logits + r * stride, options.classes, got.data_ptr<float>() + r * options.classes);
  }
  expect_close(got, expected, tolerance, "logits");
}

void train_step(const Case& given) {
  if (given.facts.at("trainable").get<std::string>().rfind("all", 0) == 0) {
    GTEST_SKIP() << "the backbones are trained along: that is the autograd engine's";
  }
  ASSERT_EQ(given.facts.value("dropout", 0.0), 0.0) << "the masks of another generator cannot be drawn here";
  const auto& tolerances = given.facts.at("tolerance");
  const Tolerance exact = Tolerance::read(tolerances.at("logits/loss/grad"));
  StepModel model(given);
  StepOptimiser optimiser(given);
  const at::Tensor labels = given.tensor("labels"), losses = given.tensor("losses");
  plain::Workspace<float> work;
  std::optional<plain::Network<float>> network;
  for (int step = 1; step <= given.facts.at("steps").get<int>(); ++step) {
    const std::string name = "step" + std::to_string(step);
    std::vector<at::Tensor> own_logits;
    const auto taps = model.taps(&own_logits);
    if (!network) network.emplace(model.fusion(), widths_of(taps), 0, 0);
    const Rows rows(taps, labels);

    // what the gradient is: a step downhill by exactly it, by a copy
    network->copy_to(model.fusion());
    const at::Tensor before = model.fusion().parameters().snapshot();
    plain::Network<float> copy(model.fusion(), widths_of(taps), 0, 0);
    copy.train(rows.tile(), 0, rows.count(), 0, {0, 1, 0, 0, 1, 0, 1, 1}, work);
    copy.copy_to(model.fusion());
    model.fusion().parameters().restore(before.sub(model.fusion().parameters().snapshot()));
    for (const auto& [tensor_name, gradient] : model.fusion().parameters().named()) {
      const std::string grad = name + ".grad." + tensor_name;
      if (given.has(grad)) expect_close(gradient, given.tensor(grad), exact, grad);
    }

    double loss = network->train(rows.tile(), 0, rows.count(), 0, adam_step(optimiser.adam, step, optimiser.schedule.next()), work) /
                  static_cast<double>(rows.count());
    if (given.facts.at("multitask").get<bool>()) {
      for (const at::Tensor& own : own_logits) loss += at::cross_entropy_loss(own, labels).item<double>();
    }
    const double expected = losses[step - 1].item<double>();
    EXPECT_NEAR(loss, expected, exact.atol + exact.rtol * std::abs(expected)) << name;
    network->copy_to(model.fusion());
    int compared = 0;
    for (const FlatTensors* const tensors : {&model.fusion().parameters(), &model.fusion().buffers()}) {
      for (const auto& [tensor_name, tensor] : tensors->named()) {
        const std::string full = name + ".after." + tensor_name;
        if (!given.has(full)) continue;
        expect_close(tensor, given.tensor(full), Tolerance::read(tolerances.at(name + ".after")), full);
        ++compared;
      }
    }
    EXPECT_TRUE(compared > 0 || !tolerances.contains(name + ".after")) << name;
  }
}

}  // namespace
}  // namespace fusion

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  fusion::prepare_training_thread();
  fusion::golden::register_cases({{"fusion_forward", fusion::fusion_forward}, {"train_step", fusion::train_step}});
  return RUN_ALL_TESTS();
}
