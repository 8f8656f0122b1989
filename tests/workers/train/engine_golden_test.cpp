// The reference's own numbers, met by the plain and the stacked engine: networks these can train, on features that are given.
#include "tests/workers/train/golden_step_model.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <memory>
#include <optional>
#include <span>

#include "model/device.h"
#include "model/torch_compat.h"
#include "workers/train/plain_network.h"
#include "workers/train/stacked_plan.h"

namespace fusion {
namespace {

using golden::Case;
using golden::expect_close;
using golden::StepModel;
using golden::StepOptimiser;
using golden::Tolerance;

using Taps = std::vector<std::vector<at::Tensor>>;

/// Some rows as the engines read them, each of them once and in order.
FeatureSplit rows_of(const Taps& taps, const at::Tensor& labels) {
  FeatureSplit split;
  split.rows = labels.size(0);
  split.labels = labels.contiguous();
  split.logits.resize(taps.size());
  for (const auto& of_modality : taps) {
    auto& of_split = split.taps.emplace_back();
    for (const at::Tensor& tap : of_modality) of_split.push_back(tap.detach().contiguous());
  }
  return split;
}

/// One network, trained by an engine.
class Engine {
 public:
  virtual ~Engine() = default;
  /// One step on all rows; their mean loss.
  virtual double train(const FeatureSplit& rows, const plain::AdamStep<float>& adam) = 0;
  /// [rows, classes]
  virtual at::Tensor logits(const FeatureSplit& rows) = 0;
  virtual void copy_to(FusionNetwork& to) const = 0;
};

class PlainEngine final : public Engine {
 public:
  PlainEngine(const FusionNetwork& weights, const TapWidths& widths) : options_(weights.options()), network_(weights, widths, 0, 0) {}

  double train(const FeatureSplit& rows, const plain::AdamStep<float>& adam) override {
    return network_.train(tile(rows), 0, rows.rows, 0, adam, work_) / static_cast<double>(rows.rows);
  }
  at::Tensor logits(const FeatureSplit& rows) override {
    const at::Tensor got = at::zeros({rows.rows, options_.classes}, at::kFloat);
    const std::int64_t stride = plain::padded(options_.classes);
    const float* const logits = network_.logits(tile(rows), 0, rows.rows, work_);
    for (std::int64_t r = 0; r < rows.rows; ++r) {
      std::copy_n(logits + r * stride, options_.classes, got.data_ptr<float>() + r * options_.classes);
    }
    return got;
  }
  void copy_to(FusionNetwork& to) const override { network_.copy_to(to); }

 private:
  const FeatureTile<float>& tile(const FeatureSplit& rows) {
    std::vector<std::vector<bool>> used;
    for (const auto& of_modality : rows.taps) used.emplace_back(of_modality.size(), true);
    tile_.emplace(rows, used, rows.rows);
    tile_->fill(0, rows.rows);
    return *tile_;
  }

  FusionOptions options_;
  plain::Network<float> network_;
  plain::Workspace<float> work_;
  std::optional<FeatureTile<float>> tile_;
};

class StackedEngine final : public Engine {
 public:
  StackedEngine(const FusionNetwork& weights, const TapWidths& widths, std::int64_t rows, stacked::CpuProducts products)
      : options_{weights.options(), 0, rows, rows},
        backend_(stacked::make_cpu_backend<float>(products)),
        network_(*backend_, weights, widths, 0, options_) {}

  double train(const FeatureSplit& rows, const plain::AdamStep<float>& adam) override {
    std::vector<std::int32_t> unused;
    const auto plan = this->plan(rows, &adam, unused);
    return plan->train(0, rows.rows, 0, 1).front() / static_cast<double>(rows.rows);
  }
  at::Tensor logits(const FeatureSplit& rows) override {
    std::vector<std::int32_t> classes(static_cast<std::size_t>(rows.rows));
    plan(rows, nullptr, classes)->score(0, rows.rows, 0);
    const std::vector<float> logits = network_.logits(rows.rows);
    const at::Tensor got = at::zeros({rows.rows, options_.fusion.classes}, at::kFloat);
    std::copy(logits.begin(), logits.end(), got.data_ptr<float>());
    return got;
  }
  void copy_to(FusionNetwork& to) const override { network_.copy_to(to); }

 private:
  std::unique_ptr<stacked::Plan<float>> plan(const FeatureSplit& rows, const plain::AdamStep<float>* adam, std::vector<std::int32_t>& classes) {
    stacked::CohortSource<float> source;
    source.cohort.adam = adam;
    for (const auto& of_modality : rows.taps) {
      auto& of_source = source.taps.emplace_back();
      for (const at::Tensor& tap : of_modality) of_source.push_back({tap.data_ptr(), tap.size(1), stacked::Source::float32});
    }
    const stacked::Member<float> member{&network_, 0, classes.data()};
    return std::make_unique<stacked::Plan<float>>(*backend_, options_, std::span(&member, 1), std::span(&source, 1),
                                                  stacked::Labels{rows.labels.data_ptr<std::int64_t>(), nullptr}, adam != nullptr);
  }

  const stacked::NetworkOptions options_;
  std::unique_ptr<stacked::Backend<float>> backend_;
  stacked::Network<float> network_;
};

const std::vector<std::string> kEngines{"plain", "stacked by LibTorch's products", "stacked by block programs"};

std::unique_ptr<Engine> make_engine(const std::string& name, const FusionNetwork& weights, const TapWidths& widths, std::int64_t rows) {
  if (name == kEngines[0]) return std::make_unique<PlainEngine>(weights, widths);
  const auto products = name == kEngines[1] ? stacked::CpuProducts::torch : stacked::CpuProducts::blocks;
  return std::make_unique<StackedEngine>(weights, widths, rows, products);
}

TapWidths widths_of(const Taps& taps) {
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

void fusion_forward(const Case& given, const std::string& engine) {
  Taps taps;
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
  const FeatureSplit rows = rows_of(taps, labels);
  const auto network = make_engine(engine, weights, widths_of(taps), rows.rows);
  const Tolerance tolerance = Tolerance::read(given.facts.at("tolerance"));
  if (given.facts.value("mode", "eval").rfind("train", 0) == 0) {  // by batch statistics: the loss is what can be seen of it
    const double loss = network->train(rows, adam_step({}, 1, 0));
    EXPECT_NEAR(loss, at::cross_entropy_loss(expected, labels).item<double>(), tolerance.atol + tolerance.rtol * std::abs(loss));
    return;
  }
  expect_close(network->logits(rows), expected, tolerance, "logits");
}

void train_step(const Case& given, const std::string& engine) {
  if (given.facts.at("trainable").get<std::string>().rfind("all", 0) == 0) {
    GTEST_SKIP() << "the backbones are trained along: that is the autograd engine's";
  }
  ASSERT_EQ(given.facts.value("dropout", 0.0), 0.0) << "the masks of another generator cannot be drawn here";
  const auto& tolerances = given.facts.at("tolerance");
  const Tolerance exact = Tolerance::read(tolerances.at("logits/loss/grad"));
  StepModel model(given);
  StepOptimiser optimiser(given);
  const at::Tensor labels = given.tensor("labels"), losses = given.tensor("losses");
  std::unique_ptr<Engine> network;
  for (int step = 1; step <= given.facts.at("steps").get<int>(); ++step) {
    const std::string name = "step" + std::to_string(step);
    std::vector<at::Tensor> own_logits;
    const auto taps = model.taps(&own_logits);
    if (!network) network = make_engine(engine, model.fusion(), widths_of(taps), labels.size(0));
    const FeatureSplit rows = rows_of(taps, labels);

    // what the gradient is: a step downhill by exactly it, by a copy
    network->copy_to(model.fusion());
    const at::Tensor before = model.fusion().parameters().snapshot();
    const auto copy = make_engine(engine, model.fusion(), widths_of(taps), labels.size(0));
    copy->train(rows, {0, 1, 0, 0, 1, 0, 1, 1});
    copy->copy_to(model.fusion());
    model.fusion().parameters().restore(before.sub(model.fusion().parameters().snapshot()));
    for (const auto& [tensor_name, gradient] : model.fusion().parameters().named()) {
      const std::string grad = name + ".grad." + tensor_name;
      if (given.has(grad)) expect_close(gradient, given.tensor(grad), exact, grad);
    }

    double loss = network->train(rows, adam_step(optimiser.adam, step, optimiser.schedule.next()));
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

/// By each engine in turn.
template <void (*Check)(const Case&, const std::string&)>
void by_every_engine(const Case& given) {
  for (const std::string& engine : kEngines) {
    SCOPED_TRACE(engine);
    Check(given, engine);
  }
}

}  // namespace
}  // namespace fusion

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  fusion::prepare_training_thread();
  fusion::golden::register_cases({{"fusion_forward", fusion::by_every_engine<fusion::fusion_forward>},
                                {"train_step", fusion::by_every_engine<fusion::train_step>}});
  return RUN_ALL_TESTS();
}
