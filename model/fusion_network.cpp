#include "model/fusion_network.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/zeros.h>

#include "base/error.h"
#include "model/initialise.h"
#include "model/random_streams.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

std::string layer_name(std::size_t step) { return "layer" + std::to_string(step) + "."; }

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return at::addmm(bias, x, weight.t());
}

at::Tensor activate(const at::Tensor& z, Activation activation) {
  switch (activation) {
    case Activation::relu: return at::relu(z);
    case Activation::sigmoid: return at::sigmoid(z);
    case Activation::leaky_relu: return at::leaky_relu(z, 0.01);
    case Activation::identity: return z;
  }
  throw ModelError("activation number " + std::to_string(static_cast<int>(activation)) + " is unknown");
}

void check(const Architecture& architecture, const TapWidths& widths, const FusionOptions& options) {
  if (architecture.steps.empty()) throw ModelError("fusion network: expected at least one step, got none");
  if (options.width < 1) throw ModelError("fusion network: width: expected at least 1, got " + std::to_string(options.width));
  if (options.classes < 1) {
    throw ModelError("fusion network: classes: expected at least 1, got " + std::to_string(options.classes));
  }
  for (std::size_t i = 0; i < architecture.steps.size(); ++i) {
    const FusionStep& step = architecture.steps[i];
    const std::string where = "fusion network: step " + std::to_string(i + 1) + ": ";
    if (step.taps.empty() || step.taps.size() != widths.size()) {
      throw ModelError(where + "expected one tap for each of the " + std::to_string(widths.size()) + " modalities, got " +
                       std::to_string(step.taps.size()));
    }
    for (std::size_t m = 0; m < step.taps.size(); ++m) {
      if (step.taps[m] < 0 || static_cast<std::size_t>(step.taps[m]) >= widths[m].size()) {
        throw ModelError(where + "modality " + std::to_string(m) + " has taps 0 to " +
                         std::to_string(static_cast<std::int64_t>(widths[m].size()) - 1) + ", got tap " +
                         std::to_string(step.taps[m]));
      }
    }
  }
}

}  // namespace

TapWidths tap_widths(const DatasetSpec& dataset) {
  TapWidths widths;
  for (const ModalitySpec& modality : dataset.modalities) {
    auto& of_modality = widths.emplace_back();
    for (const TapSpec& tap : modality.taps) of_modality.push_back(tap.width);
  }
  return widths;
}

FusionNetwork::FusionNetwork(const Architecture& architecture, const TapWidths& widths, const FusionOptions& options,
                             std::uint64_t seed, const at::TensorOptions& tensors)
    : architecture_(architecture), options_(options) {
  check(architecture, widths, options);
  const at::NoGradGuard no_grad;
  const at::TensorOptions kind = tensors.has_dtype() ? tensors : tensors.dtype(c10::kFloat);
  FlatTensors::Shapes buffer_shapes;
  for (std::size_t i = 0; i < architecture.steps.size(); ++i) {
    const FusionStep& from = architecture.steps[i];
    Step& step = steps_.emplace_back();
    step.op = from.op;
    step.activation = from.activation;
    step.taps = from.taps;
    for (std::size_t m = 0; m < from.taps.size(); ++m) step.tap_columns += widths[m][static_cast<std::size_t>(from.taps[m])];
    if (options.alphas) {
      step.first_modality = at::zeros({step.tap_columns}, kind);
      step.first_modality.narrow(0, 0, widths[0][static_cast<std::size_t>(from.taps[0])]).fill_(1.0);
      step.other_modalities = at::rsub(step.first_modality, 1);
    }
    if (options.batchnorm) {
      buffer_shapes.push_back({layer_name(i) + "bn.running_mean", {options.width}});
      buffer_shapes.push_back({layer_name(i) + "bn.running_var", {options.width}});
    }
  }
  parameters_ = FlatTensors(parameter_shapes(), kind, true);
  buffers_ = FlatTensors(buffer_shapes, kind, false);
  find_tensors();
  initialise(seed);
}

FlatTensors::Shapes FusionNetwork::parameter_shapes() const {
  FlatTensors::Shapes shapes;
  const std::int64_t width = options_.width;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const std::string layer = layer_name(i);
    shapes.push_back({layer + "linear.weight", {width, input_width(i)}});
    shapes.push_back({layer + "linear.bias", {width}});
    if (steps_[i].op == FusionOp::glu) {
      shapes.push_back({layer + "gate.weight", {width, input_width(i)}});
      shapes.push_back({layer + "gate.bias", {width}});
    }
    if (options_.batchnorm) {
      shapes.push_back({layer + "bn.weight", {width}});
      shapes.push_back({layer + "bn.bias", {width}});
    }
    if (options_.alphas) shapes.push_back({layer + "alpha", {1}});
  }
  shapes.push_back({"classifier.weight", {options_.classes, width}});
  shapes.push_back({"classifier.bias", {options_.classes}});
  return shapes;
}

void FusionNetwork::find_tensors() {
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    Step& step = steps_[i];
    const std::string layer = layer_name(i);
    step.weight = parameters_.at(layer + "linear.weight");
    step.bias = parameters_.at(layer + "linear.bias");
    if (step.op == FusionOp::glu) {
      step.gate_weight = parameters_.at(layer + "gate.weight");
      step.gate_bias = parameters_.at(layer + "gate.bias");
    }
    if (options_.batchnorm) {
      step.bn_weight = parameters_.at(layer + "bn.weight");
      step.bn_bias = parameters_.at(layer + "bn.bias");
      step.bn_mean = buffers_.at(layer + "bn.running_mean");
      step.bn_var = buffers_.at(layer + "bn.running_var");
    }
    if (options_.alphas) step.alpha = parameters_.at(layer + "alpha");
  }
  classifier_weight_ = parameters_.at("classifier.weight");
  classifier_bias_ = parameters_.at("classifier.bias");
}

void FusionNetwork::initialise(std::uint64_t seed) {
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    Rng rng(seed, random_stream(StreamKind::weights, static_cast<std::uint32_t>(i)));
    initialise_linear(step.weight, step.bias, rng);
    if (step.op == FusionOp::glu) initialise_linear(step.gate_weight, step.gate_bias, rng);
    if (options_.batchnorm) {
      step.bn_weight.fill_(1.0);
      step.bn_var.fill_(1.0);
    }
    if (options_.alphas) {
      Rng alpha_rng(seed, random_stream(StreamKind::alphas, static_cast<std::uint32_t>(i)));
      fill_normal(step.alpha, 0.1, alpha_rng);
    }
  }
  Rng rng(seed, random_stream(StreamKind::weights, kMaxSteps));
  initialise_linear(classifier_weight_, classifier_bias_, rng);
}

at::Tensor FusionNetwork::join(std::size_t step, const std::vector<std::vector<at::Tensor>>& taps) const {
  std::vector<at::Tensor> parts;
  for (std::size_t m = 0; m < taps.size(); ++m) parts.push_back(taps[m].at(static_cast<std::size_t>(steps_[step].taps[m])));
  return at::cat(parts, 1);
}

at::Tensor FusionNetwork::forward(const std::vector<at::Tensor>& joined, const std::vector<at::Tensor>& masks, bool training,
                                  Trace* trace) const {
  at::Tensor h;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    at::Tensor x = joined[i];  // [B, taps]
    if (step.alpha.defined()) {
      const at::Tensor s = at::sigmoid(step.alpha);
      x = x.mul(s.mul(step.first_modality).add(at::rsub(s, 1).mul(step.other_modalities)));
    }
    if (i > 0) x = at::cat({x, h}, 1);  // [B, taps + R]
    if (trace) trace->fused.push_back(x);
    h = activate(linear(x, step.weight, step.bias), step.activation);  // [B, R]
    if (step.op == FusionOp::glu) h = h.mul(at::sigmoid(linear(x, step.gate_weight, step.gate_bias)));
    if (step.bn_weight.defined()) {
      h = at::batch_norm(h, step.bn_weight, step.bn_bias, step.bn_mean, step.bn_var, training, 0.1, 1e-5, false);
    }
    if (!masks.empty()) h = h.mul(masks[i]);
    if (trace) trace->hidden.push_back(h);
  }
  return linear(h, classifier_weight_, classifier_bias_);  // [B, classes]
}

NamedTensors FusionNetwork::shared_tensors(std::size_t step) const {
  const std::string layer = layer_name(step);
  NamedTensors shared;
  for (const FlatTensors* const tensors : {&parameters_, &buffers_}) {
    for (const auto& [name, tensor] : tensors->named()) {
      if (name.rfind(layer, 0) == 0 && name != layer + "alpha") shared.emplace_back(name.substr(layer.size()), tensor);
    }
  }
  return shared;
}

}  // namespace fusion
