#include "model/reduction.h"

#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/max_pool3d.h>
#include <ATen/ops/relu.h>

#include <cmath>

#include "base/error.h"

namespace fusion {
namespace {

std::array<std::int64_t, 3> kernel_size(ReductionKernel kernel) {
  if (kernel == ReductionKernel::time) return {3, 1, 1};
  return {3, 3, 3};
}

std::array<std::int64_t, 3> half(const std::array<std::int64_t, 3>& kernel) { return {kernel[0] / 2, kernel[1] / 2, kernel[2] / 2}; }

}  // namespace

std::int64_t ReductionOptions::width_after(std::int64_t channels) const {
  if (kind == ReductionKind::bottleneck) return width;
  if (kind == ReductionKind::inception) return branches[0] + branches[2] + branches[4] + branches[5];
  return channels;
}

std::vector<std::string> ReductionOptions::problems(const std::string& subject) const {
  std::vector<std::string> found;
  if (kind == ReductionKind::bottleneck) {
    if (width < 2 || width > 65536) {
      found.push_back(subject + ": reduction: width: expected 2 to 65536, got " + std::to_string(width));
    } else if (inner < 0 || inner > 65536) {
      found.push_back(subject + ": reduction: inner: expected 0 (half the width) to 65536, got " + std::to_string(inner));
    } else if (groups < 1 || inner_width() % groups != 0) {
      found.push_back(subject + ": reduction: groups: expected a divisor of the inner channels, " + std::to_string(inner_width()) +
                      ", got " + std::to_string(groups));
    }
  }
  if (kind == ReductionKind::inception) {
    for (const std::int64_t channels : branches) {
      if (channels >= 1 && channels <= 65536) continue;
      found.push_back(subject + ": reduction: branches: expected 1 to 65536 channels each, got " + std::to_string(channels));
    }
  }
  return found;
}

void ConvBatchNorm::declare(TensorPlan& plan, const std::string& conv, const std::string& bn, const Options& options) {
  options_ = options;
  const auto& k = options.kernel;
  const std::int64_t in = options.in / options.groups;
  const double fan_in = static_cast<double>(in * k[0] * k[1] * k[2]);
  plan.parameter(conv + ".weight", {options.out, in, k[0], k[1], k[2]}, weight_, fill_normal(std::sqrt(2.0 / fan_in)));
  plan.parameter(bn + ".weight", {options.out}, gain_, fill_ones());
  plan.parameter(bn + ".bias", {options.out}, bias_, fill_zeros());
  plan.buffer(bn + ".running_mean", {options.out}, mean_, fill_zeros());
  plan.buffer(bn + ".running_var", {options.out}, variance_, fill_ones());
}

at::Tensor ConvBatchNorm::forward(const at::Tensor& x, bool training) const {
  if (training && x.numel() <= x.size(1)) {
    throw ModelError("batch normalisation: training needs more than one value per channel; use a batch of at least 2 rows");
  }
  const auto padding = half(options_.kernel);
  const at::Tensor y = at::conv3d(x, weight_, {}, {1, 1, 1}, at::IntArrayRef(padding), {1, 1, 1}, options_.groups);
  return at::batch_norm(y, gain_, bias_, mean_, variance_, training, options_.momentum, options_.eps, false);
}

void Bottleneck::declare(TensorPlan& plan, const std::string& name, const Options& options) {
  shortcut_ = options.shortcut || options.in != options.out;
  first_.declare(plan, name + "conv1", name + "bn1", {.in = options.in, .out = options.inner});
  second_.declare(plan, name + "conv2", name + "bn2",
                  {.in = options.inner, .out = options.inner, .kernel = kernel_size(options.kernel), .groups = options.groups});
  third_.declare(plan, name + "conv3", name + "bn3", {.in = options.inner, .out = options.out});
  if (shortcut_) beside_.declare(plan, name + "downsample.0", name + "downsample.1", {.in = options.in, .out = options.out});
}

at::Tensor Bottleneck::forward(const at::Tensor& x, bool training) const {
  at::Tensor y = at::relu(first_.forward(x, training));  // [B, inner, T, H, W]
  y = at::relu(second_.forward(y, training));
  y = third_.forward(y, training);  // [B, out, T, H, W]
  return at::relu(y.add(shortcut_ ? beside_.forward(x, training) : x));
}

void InceptionBlock::declare(TensorPlan& plan, const std::string& name, std::int64_t in, const std::array<std::int64_t, 6>& branches,
                             ReductionKernel kernel) {
  kernel_ = kernel_size(kernel);
  constexpr std::array<const char*, 6> kNames{"b0", "b1a", "b1b", "b2a", "b2b", "b3b"};
  const std::array<std::int64_t, 6> inputs{in, in, branches[1], in, branches[3], in};
  for (std::size_t i = 0; i < units_.size(); ++i) {
    ConvBatchNorm::Options options{.in = inputs[i], .out = branches[i], .eps = 1e-3, .momentum = 0.01};
    if (i == 2 || i == 4) options.kernel = kernel_;
    units_[i].declare(plan, name + kNames[i] + ".conv3d", name + kNames[i] + ".bn", options);
  }
}

at::Tensor InceptionBlock::forward(const at::Tensor& x, bool training) const {
  const auto unit = [&](std::size_t i, const at::Tensor& input) { return at::relu(units_[i].forward(input, training)); };
  const auto pad = half(kernel_);
  const at::Tensor padded = at::constant_pad_nd(x, {pad[2], pad[2], pad[1], pad[1], pad[0], pad[0]});
  const at::Tensor pooled = at::max_pool3d(padded, at::IntArrayRef(kernel_), {1, 1, 1});
  return at::cat({unit(0, x), unit(2, unit(1, x)), unit(4, unit(3, x)), unit(5, pooled)}, 1);
}

void Reduction::declare(TensorPlan& plan, const std::string& name, std::int64_t channels, const ReductionOptions& options) {
  kind_ = options.kind;
  if (kind_ == ReductionKind::bottleneck) {
    bottleneck_.declare(plan, name, {channels, options.inner_width(), options.width, options.groups, options.kernel});
  } else if (kind_ == ReductionKind::inception) {
    inception_.declare(plan, name, channels, options.branches, options.kernel);
  }
}

at::Tensor Reduction::forward(const at::Tensor& x, bool training) const {
  if (kind_ == ReductionKind::bottleneck) return bottleneck_.forward(x, training);
  if (kind_ == ReductionKind::inception) return inception_.forward(x, training);
  return x;
}

}  // namespace fusion
