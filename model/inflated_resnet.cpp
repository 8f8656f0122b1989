#include "model/inflated_resnet.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>

#include <cmath>

#include "base/error.h"
#include "model/initialise.h"
#include "model/random_streams.h"
#include "model/tensor_io.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

constexpr std::int64_t kReferencePool = 7;

void check(const InflatedResnetOptions& o) {
  std::vector<std::string> problems;
  const auto range = [&](const std::string& name, std::int64_t value, std::int64_t max) {
    if (value < 1 || value > max) {
      problems.push_back("inflated resnet: " + name + ": expected 1 to " + std::to_string(max) + ", got " + std::to_string(value));
    }
  };
  for (std::size_t i = 0; i < o.blocks.size(); ++i) range("blocks of stage " + std::to_string(i + 1), o.blocks[i], 100);
  range("width", o.width, 1024);
  range("classes", o.classes, 1'000'000);
  if (!problems.empty()) throw ModelError(join_problems(problems));
}

std::string block_name(std::size_t stage, std::int64_t block) {
  return "cnn.layer" + std::to_string(stage + 1) + "." + std::to_string(block) + ".";
}

/// Collects the shapes of parameters and buffers, in the reference's order.
struct Shapes {
  FlatTensors::Shapes parameters, buffers;

  void unit(const std::string& conv, const std::string& norm, std::vector<std::int64_t> kernel) {
    const std::int64_t outputs = kernel[0];
    parameters.push_back({conv + ".weight", std::move(kernel)});
    for (const char* const name : {".weight", ".bias"}) parameters.push_back({norm + name, {outputs}});
    for (const char* const name : {".running_mean", ".running_var"}) buffers.push_back({norm + name, {outputs}});
  }

  explicit Shapes(const InflatedResnetOptions& o) {
    unit("cnn.conv1", "cnn.bn1", {o.width, 3, 7, 7});
    std::int64_t inputs = o.width;
    for (std::size_t s = 0; s < o.blocks.size(); ++s) {
      const std::int64_t planes = o.width << s, outputs = 4 * planes;
      for (std::int64_t b = 0; b < o.blocks[s]; ++b) {
        const std::string block = block_name(s, b);
        unit(block + "conv1", block + "bn1", {planes, inputs, 1, 1, 1});
        unit(block + "conv2", block + "bn2", {planes, planes, 3, 3, 3});
        unit(block + "conv3", block + "bn3", {outputs, planes, 1, 1, 1});
        if (b == 0) unit(block + "downsample.0", block + "downsample.1", {outputs, inputs, 1, 1, 1});
        inputs = outputs;
      }
    }
    parameters.push_back({"classifier.weight", {o.classes, inputs}});
    parameters.push_back({"classifier.bias", {o.classes}});
  }
};

std::string text_of(at::IntArrayRef sizes) {
  std::string text;
  for (const std::int64_t size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

}  // namespace

InflatedResnet::InflatedResnet(const InflatedResnetOptions& options, std::uint64_t seed, const at::TensorOptions& tensors)
    : options_(options) {
  check(options);
  const at::NoGradGuard no_grad;
  const at::TensorOptions kind = tensors.has_dtype() ? tensors : tensors.dtype(c10::kFloat);
  const Shapes shapes(options);
  parameters_ = FlatTensors(shapes.parameters, kind, true);
  buffers_ = FlatTensors(shapes.buffers, kind, false);
  stem_ = find_unit("cnn.conv1", "cnn.bn1", 2);
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    for (std::int64_t b = 0; b < options.blocks[s]; ++b) {
      const std::string name = block_name(s, b);
      const std::int64_t stride = b == 0 && s > 0 ? 2 : 1;
      Block& block = stages_[s].emplace_back();
      block.units = {find_unit(name + "conv1", name + "bn1", 1), find_unit(name + "conv2", name + "bn2", stride),
                     find_unit(name + "conv3", name + "bn3", 1)};
      if (b == 0) block.shortcut = find_unit(name + "downsample.0", name + "downsample.1", stride);
    }
  }
  classifier_weight_ = parameters_.at("classifier.weight");
  classifier_bias_ = parameters_.at("classifier.bias");
  initialise(seed);
}

InflatedResnet::Unit InflatedResnet::find_unit(const std::string& conv, const std::string& norm, std::int64_t stride) const {
  return {parameters_.at(conv + ".weight"),     parameters_.at(norm + ".weight"),  parameters_.at(norm + ".bias"),
          buffers_.at(norm + ".running_mean"), buffers_.at(norm + ".running_var"), stride};
}

void InflatedResnet::initialise(std::uint64_t seed) {
  std::uint32_t layer = 0;
  const auto unit = [&](const Unit& u) {
    const std::int64_t places = u.conv.size(-2) * u.conv.size(-1);
    Rng rng(seed, random_stream(StreamKind::backbone, layer++));
    fill_normal(u.conv, std::sqrt(2.0 / static_cast<double>(places * u.conv.size(0))), rng);
    u.weight.fill_(1.0);
    u.var.fill_(1.0);
  };
  unit(stem_);
  for (const auto& stage : stages_) {
    for (const Block& block : stage) {
      for (const Unit& u : block.units) unit(u);
      if (block.shortcut.conv.defined()) unit(block.shortcut);
    }
  }
  Rng rng(seed, random_stream(StreamKind::backbone, layer));
  initialise_linear(classifier_weight_, classifier_bias_, rng);
}

void InflatedResnet::inflate(const SafetensorsFile& image_network) {
  const at::NoGradGuard no_grad;
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;  // from, into
  std::vector<std::string> problems;
  for (const FlatTensors* const tensors : {&parameters_, &buffers_}) {
    for (const auto& [name, tensor] : tensors->named()) {
      if (name.rfind("cnn.", 0) != 0) continue;
      const std::string there = name.substr(4);
      const at::Tensor middle = tensor.dim() == 5 ? tensor.select(2, tensor.size(2) / 2) : tensor;
      if (!image_network.contains(there)) {
        problems.push_back(image_network.path().string() + ": there is no tensor " + there);
      } else if (at::IntArrayRef(image_network.at(there).shape) != middle.sizes()) {
        problems.push_back(image_network.path().string() + ": " + there + ": expected " + text_of(middle.sizes()) + ", got " +
                           text_of(image_network.at(there).shape));
      } else {
        copies.emplace_back(copy_tensor(image_network.at(there)), tensor);
      }
    }
  }
  if (!problems.empty()) throw ModelError(join_problems(problems));
  for (const auto& [from, into] : copies) {
    if (into.dim() == 5) into.zero_();
    (into.dim() == 5 ? into.select(2, into.size(2) / 2) : into).copy_(from);
  }
}

at::Tensor InflatedResnet::apply(const Unit& unit, const at::Tensor& x, bool training) {
  const std::vector<std::int64_t> sizes = unit.conv.sizes().vec();
  std::vector<std::int64_t> strides(sizes.size() - 2, unit.stride), padding;
  for (std::size_t axis = 2; axis < sizes.size(); ++axis) padding.push_back(sizes[axis] / 2);
  if (sizes.size() == 5) strides[0] = 1;
  const at::Tensor z = sizes.size() == 5 ? at::conv3d(x, unit.conv, {}, strides, padding)
                                         : at::conv2d(x, unit.conv, {}, strides, padding);
  return at::batch_norm(z, unit.weight, unit.bias, unit.mean, unit.var, training, 0.1, 1e-5, true);
}

at::Tensor InflatedResnet::stem(const at::Tensor& clip, bool training) const {
  if (clip.dim() != 5 || clip.size(4) != 3 || clip.numel() == 0) {
    throw ModelError("inflated resnet: expected a clip [B, T, H, W, 3], got " + text_of(clip.sizes()));
  }
  const std::int64_t batch = clip.size(0), frames = clip.size(1);
  const at::Tensor images = clip.permute({0, 1, 4, 2, 3}).flatten(0, 1).contiguous();  // [B * T, 3, H, W]
  const at::Tensor maps = at::max_pool2d(at::relu(apply(stem_, images, training)), {3, 3}, {2, 2}, {1, 1});
  return maps.view({batch, frames, maps.size(1), maps.size(2), maps.size(3)}).transpose(1, 2).contiguous();  // [B, C, T, h, w]
}

at::Tensor InflatedResnet::stage(std::size_t index, const at::Tensor& map, bool training) const {
  at::Tensor x = map;
  for (const Block& block : stages_.at(index)) {
    at::Tensor h = at::relu(apply(block.units[0], x, training));
    h = at::relu(apply(block.units[1], h, training));
    h = apply(block.units[2], h, training);
    x = at::relu(h.add(block.shortcut.conv.defined() ? apply(block.shortcut, x, training) : x));
  }
  return x;
}

at::Tensor InflatedResnet::pool(const at::Tensor& map) const {
  if (options_.pool == ClipPool::repaired) return map.mean(at::IntArrayRef{2, 3, 4});
  if (map.size(3) < kReferencePool || map.size(4) < kReferencePool) {
    throw ModelError("inflated resnet: pool reference needs a last map of 7 rows and columns or more (frames of 193 by 193), got " +
                     text_of(map.sizes()));
  }
  return map.narrow(3, 0, kReferencePool).narrow(4, 0, kReferencePool).mean(at::IntArrayRef{2, 3, 4});
}

at::Tensor InflatedResnet::classify(const at::Tensor& pooled) const {
  return at::addmm(classifier_bias_, pooled, classifier_weight_.t());
}

InflatedResnet::Output InflatedResnet::forward(const at::Tensor& clip, bool training) const {
  Output out;
  at::Tensor map = stem(clip, training);
  for (std::size_t s = 0; s < stages_.size(); ++s) out.taps.push_back(map = stage(s, map, training));
  out.taps.push_back(pool(map));
  out.logits = classify(out.taps.back());
  return out;
}

}  // namespace fusion
