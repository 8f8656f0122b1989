#include "model/hcn.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/upsample_bilinear2d.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/dropout.h"
#include "model/initialise.h"
#include "model/random_streams.h"
#include "model/torch_compat.h"

namespace fusion {

/// Places in `parameters_`, in the reference's order.
enum Hcn::Layer : std::size_t { kConv1, kConv2, kConv3, kConv4, kConv1m, kConv2m, kConv3m, kConv4m, kConv5, kConv6, kFc7, kFc8 };

namespace {

constexpr std::int64_t kFc7Width = 512;
/// Places of dropout; each is a stream of its own.
enum Place { kDropConv4, kDropConv4m, kDropConv5, kDropConv6, kDropFc7 };

void check(const HcnOptions& o) {
  std::vector<std::string> problems;
  const auto want = [&](bool right, const std::string& text) {
    if (!right) problems.push_back("hcn: " + text);
  };
  want(o.window == 8 || (o.window >= 16 && o.window <= 4096), "window: expected 8 or 16 to 4096, got " + std::to_string(o.window));
  want(o.joints >= 1 && o.joints <= 4096, "joints: expected 1 to 4096, got " + std::to_string(o.joints));
  want(o.classes >= 1 && o.classes <= 1'000'000, "classes: expected 1 to 1000000, got " + std::to_string(o.classes));
  want(o.dropout >= 0 && o.dropout < 1, "dropout: expected a number in [0, 1), got " + std::to_string(o.dropout));
  if (!problems.empty()) throw ModelError(join_problems(problems));
}

std::int64_t flat_width_of(const HcnOptions& o) {
  const std::int64_t side = std::max<std::int64_t>(o.window / 16, 1);
  return 256 * side * side;
}

FlatTensors::Shapes shapes_of(const HcnOptions& o) {
  FlatTensors::Shapes shapes;
  const auto layer = [&](const std::string& name, std::vector<std::int64_t> shape) {
    const std::int64_t outputs = shape[0];
    shapes.push_back({name + ".weight", std::move(shape)});
    shapes.push_back({name + ".bias", {outputs}});
  };
  for (const std::string m : {"", "m"}) {
    layer("conv1" + m + ".0", {64, 3, 1, 1});
    layer("conv2" + m, {o.window, 64, 3, 1});
    layer("conv3" + m + ".0", {32, o.joints, 3, 3});
    layer("conv4" + m + ".0", {64, 32, 3, 3});
  }
  layer("conv5.0", {128, 128, 3, 3});
  layer("conv6.0", {256, 128, 3, 3});
  layer("fc7.0", {kFc7Width, flat_width_of(o)});
  layer("fc8", {o.classes, kFc7Width});
  return shapes;
}

/// Fan in + fan out of a linear or convolution weight.
double fans_of(const at::Tensor& weight) {
  const auto fan_in = static_cast<double>(fan_in_of(weight));
  return fan_in + fan_in / static_cast<double>(weight.size(1)) * static_cast<double>(weight.size(0));
}

at::Tensor pool(const at::Tensor& x) { return at::max_pool2d(x, {2, 2}); }

/// [P * B, ...] to [P, B, ...].
at::Tensor by_person(const at::Tensor& x, std::int64_t persons) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape[0] /= persons;
  shape.insert(shape.begin(), persons);
  return x.reshape(shape);
}

}  // namespace

Hcn::Hcn(const HcnOptions& options, std::uint64_t seed, const at::TensorOptions& tensors) : options_(options) {
  check(options);
  const at::NoGradGuard no_grad;
  parameters_ = FlatTensors(shapes_of(options), tensors.has_dtype() ? tensors : tensors.dtype(c10::kFloat), true);
  const NamedTensors& named = parameters_.named();
  for (std::size_t i = 0; i < named.size(); i += 2) {
    Rng rng(seed, random_stream(StreamKind::backbone, static_cast<std::uint32_t>(i / 2)));
    fill_uniform(named[i].second, std::sqrt(6.0 / fans_of(named[i].second)), rng);
  }
}

std::int64_t Hcn::flat_width() const { return flat_width_of(options_); }

at::Tensor Hcn::convolve(Layer layer, const at::Tensor& x) const {
  const at::Tensor& weight = parameters_.named()[2 * layer].second;
  const std::vector<std::int64_t> padding{weight.size(2) / 2, weight.size(3) / 2};
  return at::conv2d(x, weight, parameters_.named()[2 * layer + 1].second, /*stride=*/1, padding);
}

at::Tensor Hcn::linear(Layer layer, const at::Tensor& x) const {
  return at::addmm(parameters_.named()[2 * layer + 1].second, x, parameters_.named()[2 * layer].second.t());
}

/// x: [P * B, C, ...]. Element (row, person, channel) of a place's masks is the same whatever the batch.
at::Tensor Hcn::drop(int place, const at::Tensor& x, std::int64_t persons, const DropoutRows* dropout) const {
  if (dropout == nullptr || options_.dropout == 0) return x;
  const std::int64_t rows = x.size(0) / persons, channels = x.size(1);
  const at::Tensor mask = at::empty({rows, persons, channels}, at::TensorOptions().dtype(c10::kFloat));
  fill_dropout_mask(mask.data_ptr<float>(), mask.numel(), dropout->first_row * persons * channels, options_.dropout, dropout->seed,
                    static_cast<std::uint32_t>(place));
  std::vector<std::int64_t> shape(static_cast<std::size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  shape[1] = channels;
  return x.mul(mask.transpose(0, 1).reshape(shape).to(x.device(), x.scalar_type()));
}

/// x: [P * B, 3, W, V]. Returns [P * B, 64, W/4, W/4].
at::Tensor Hcn::stream(bool motion, const at::Tensor& x, std::int64_t persons, const DropoutRows* dropout, Persons* seen) const {
  const auto layer = [&](Layer position) { return static_cast<Layer>(position + (motion ? kConv1m - kConv1 : 0)); };
  const at::Tensor conv1 = at::relu(convolve(layer(kConv1), x));                              // [P * B, 64, W, V]
  const at::Tensor conv2 = convolve(layer(kConv2), conv1).permute({0, 3, 2, 1}).contiguous();  // [P * B, V, W, W]
  const at::Tensor conv3 = pool(convolve(layer(kConv3), conv2));                              // [P * B, 32, W/2, W/2]
  if (seen != nullptr) {
    seen->conv1 = by_person(conv1, persons);
    seen->conv2 = by_person(conv2, persons);
    seen->conv3 = by_person(conv3, persons);
  }
  return pool(drop(motion ? kDropConv4m : kDropConv4, convolve(layer(kConv4), conv3), persons, dropout));
}

Hcn::Persons Hcn::look(const at::Tensor& x, const DropoutRows* dropout) const {
  const std::int64_t window = options_.window, joints = options_.joints;
  if (x.dim() != 5 || x.size(0) < 1 || x.size(1) != 3 || x.size(2) != window || x.size(3) != joints || x.size(4) < 1) {
    std::string shape;
    for (const std::int64_t size : x.sizes()) shape += (shape.empty() ? "" : ", ") + std::to_string(size);
    throw ModelError("hcn: expected skeletons [B, 3, " + std::to_string(window) + ", " + std::to_string(joints) +
                     ", persons], got [" + shape + "]");
  }
  const std::int64_t persons = x.size(4);
  const at::Tensor position = x.permute({4, 0, 1, 2, 3}).flatten(0, 1);  // [P * B, 3, W, V]
  const at::Tensor difference = position.narrow(2, 1, window - 1).sub(position.narrow(2, 0, window - 1));
  const at::Tensor motion = at::upsample_bilinear2d(difference, {window, joints}, /*align_corners=*/false);
  Persons seen;
  const at::Tensor streams = at::cat({stream(false, position, persons, dropout, &seen),  //
                                      stream(true, motion, persons, dropout, nullptr)},
                                     1);  // [P * B, 128, W/4, W/4]
  at::Tensor conv5 = drop(kDropConv5, at::relu(convolve(kConv5, streams)), persons, dropout);
  if (window != 8) conv5 = pool(conv5);
  seen.conv4 = by_person(streams, persons);
  seen.conv5 = by_person(conv5, persons);
  return seen;
}

at::Tensor Hcn::conv6(const at::Tensor& conv5, const DropoutRows* dropout) const {
  const std::int64_t persons = conv5.size(0);
  return by_person(pool(drop(kDropConv6, at::relu(convolve(kConv6, conv5.flatten(0, 1))), persons, dropout)), persons);
}

at::Tensor Hcn::fc7(const at::Tensor& flat, const DropoutRows* dropout) const {
  return drop(kDropFc7, at::relu(linear(kFc7, flat)), 1, dropout);
}

at::Tensor Hcn::fc8(const at::Tensor& hidden) const { return linear(kFc8, hidden); }

Hcn::Output Hcn::forward(const at::Tensor& x, const DropoutRows* dropout) const {
  const Persons seen = look(x, dropout);
  const at::Tensor conv6_most = most_of_persons(conv6(seen.conv5, dropout));
  const at::Tensor flat = conv6_most.flatten(1);
  const at::Tensor hidden = fc7(flat, dropout);
  Output out;
  for (const at::Tensor& each : {seen.conv1, seen.conv2, seen.conv3, seen.conv4, seen.conv5}) {
    out.taps.push_back(most_of_persons(each));
  }
  out.taps.insert(out.taps.end(), {conv6_most, flat, hidden});
  out.logits = fc8(hidden);
  return out;
}

}  // namespace fusion
