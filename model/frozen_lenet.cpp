#include "model/frozen_lenet.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

constexpr int kImages = 16;

/// One block of the network: numbers and strides in floats. Images lie innermost.
struct Block {
  long kernel = 3, in_channels = 1, out_channels = 1, height = 1, width = 1;
  long in_row = 0, in_plane = 0, out_row = 0, out_plane = 0;
  bool sum_pooled = false;  ///< the tap is taken behind the pooling
  const float* weights = nullptr;
  const float* scale = nullptr;
  const float* shift = nullptr;
};

/// Channels that are computed together when so many are left.
constexpr long channels_at_once(long left) { return left == 3 || left == 6 ? 3 : std::min(left, 4L); }

namespace any {
#define FUSION_TARGET
constexpr int kLanes = 4, kTile = 2;
#include "model/lenet_kernel.inc"
#undef FUSION_TARGET
}  // namespace any

#if defined(__x86_64__)
namespace avx2 {
#define FUSION_TARGET __attribute__((target("avx2")))
constexpr int kLanes = 8, kTile = 2;
#include "model/lenet_kernel.inc"
#undef FUSION_TARGET
}  // namespace avx2
namespace avx512 {
#define FUSION_TARGET __attribute__((target("avx512f")))
constexpr int kLanes = 16, kTile = 4;
#include "model/lenet_kernel.inc"
#undef FUSION_TARGET
}  // namespace avx512
#endif

using RunBlock = void (*)(const Block&, const float*, float*, float*, float*);

RunBlock run_block_with(int vector) {
#if defined(__x86_64__)
  if (vector == 16) return avx512::run_block;
  if (vector == 8) return avx2::run_block;
#endif
  return any::run_block;
}

int checked_vector(int vector) {
  int widest = 4;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) widest = 8;
  if (__builtin_cpu_supports("avx512f")) widest = 16;
#endif
  if (vector == 0) return widest;
  if ((vector == 4 || vector == 8 || vector == 16) && vector <= widest) return vector;
  throw ModelError("lenet: vectors of " + std::to_string(vector) + " numbers: expected 4, 8 or 16, of which this processor has up to " +
                   std::to_string(widest));
}

}  // namespace

FrozenLeNet::FrozenLeNet(const LeNet& network, int vector) : options_(network.options()), vector_(checked_vector(vector)) {
  const at::NoGradGuard no_grad;
  const auto kind = at::TensorOptions().dtype(c10::kFloat);
  const FlatTensors& p = network.parameters();
  const FlatTensors& b = network.buffers();
  const std::vector<std::int64_t> widths = options_.tap_widths();
  std::int64_t inputs = options_.input_channels, height = options_.height, width = options_.width;
  rows_ = at::zeros({2 * 4 * width * kImages}, kind);
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const std::string n = std::to_string(i + 1);
    const std::int64_t kernel = i == 0 ? 5 : 3;
    Layer& layer = layers_.emplace_back();
    const at::Tensor conv = p.at("conv" + n + ".weight");  // [out, in, ky, kx]
    layer.weights = at::empty({conv.numel()}, kind);
    for (std::int64_t first = 0; first < widths[i];) {
      const std::int64_t together = channels_at_once(widths[i] - first);
      const std::int64_t window = inputs * kernel * kernel;
      layer.weights.narrow(0, first * window, together * window)
          .view({inputs, kernel, kernel, together})
          .copy_(conv.narrow(0, first, together).permute({1, 2, 3, 0}));
      first += together;
    }
    const at::Tensor deviation = b.at("bn" + n + ".running_var").add(1e-5).sqrt();
    layer.scale = p.at("bn" + n + ".weight").div(deviation);
    layer.shift = p.at("bn" + n + ".bias").sub(b.at("bn" + n + ".running_mean").mul(layer.scale));
    layer.input = at::zeros({inputs, height + kernel - 1, width + kernel - 1, kImages}, kind);
    layer.sums = at::zeros({widths[i], kImages}, kind);
    inputs = widths[i];
    height /= 2;
    width /= 2;
  }
  classifier_weight_ = p.at("classifier.weight").clone();
  classifier_bias_ = p.at("classifier.bias").clone();
}

void FrozenLeNet::run(std::size_t index) const {
  const Layer& layer = layers_[index];
  const bool last = index + 1 == layers_.size();
  Block block;
  block.kernel = index == 0 ? 5 : 3;
  block.in_channels = layer.input.size(0);
  block.out_channels = layer.sums.size(0);
  block.height = layer.input.size(1) - block.kernel + 1;
  block.width = layer.input.size(2) - block.kernel + 1;
  block.in_row = layer.input.stride(1);
  block.in_plane = layer.input.stride(0);
  block.sum_pooled = index == 0 && options_.first_tap_after_pool;
  block.weights = layer.weights.data_ptr<float>();
  block.scale = layer.scale.data_ptr<float>();
  block.shift = layer.shift.data_ptr<float>();
  float* out = nullptr;
  at::Tensor unused;
  if (!last) {
    const at::Tensor& next = layers_[index + 1].input;
    block.out_row = next.stride(1);
    block.out_plane = next.stride(0);
    out = next.data_ptr<float>() + next.stride(1) + kImages;  // inside its border of one
  } else if (block.sum_pooled) {
    block.out_row = block.width / 2 * kImages;
    block.out_plane = block.height / 2 * block.out_row;
    unused = at::empty({block.out_channels * block.out_plane}, layer.sums.options());
    out = unused.data_ptr<float>();
  }
  layer.sums.zero_();
  run_block_with(vector_)(block, layer.input.data_ptr<float>(), rows_.data_ptr<float>(), out, layer.sums.data_ptr<float>());
}

BackboneOutput FrozenLeNet::forward(const at::Tensor& x) const {
  TORCH_CHECK(x.dim() == 4 && x.size(1) == options_.input_channels && x.size(2) == options_.height && x.size(3) == options_.width &&
                  x.scalar_type() == c10::kFloat,
              "expected a float32 batch [B, ", options_.input_channels, ", ", options_.height, ", ", options_.width, "], got ",
              x.sizes());
  const at::NoGradGuard no_grad;
  const at::Tensor images = x.contiguous();
  const std::int64_t rows = x.size(0), pixels = x.numel() / std::max<std::int64_t>(1, rows);
  BackboneOutput out;
  for (const std::int64_t width : options_.tap_widths()) out.taps.push_back(at::empty({rows, width}, x.options()));
  out.logits = at::empty({rows, options_.classes}, x.options());
  for (std::int64_t begin = 0; begin < rows; begin += kImages) {
    const std::int64_t count = std::min<std::int64_t>(kImages, rows - begin);
    const at::Tensor inside = layers_[0].input.narrow(1, 2, options_.height).narrow(2, 2, options_.width);
    for (std::int64_t i = 0; i < count; ++i) {
      const float* from = images.data_ptr<float>() + (begin + i) * pixels;
      for (std::int64_t c = 0; c < options_.input_channels; ++c) {
        for (std::int64_t y = 0; y < options_.height; ++y) {
          float* const to = inside.data_ptr<float>() + c * inside.stride(0) + y * inside.stride(1) + i;
          for (std::int64_t column = 0; column < options_.width; ++column) to[column * kImages] = *from++;
        }
      }
    }
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      run(i);
      const bool pooled = i == 0 && options_.first_tap_after_pool;
      const std::int64_t shrink = pooled ? static_cast<std::int64_t>(i) + 1 : static_cast<std::int64_t>(i);
      const auto area = static_cast<float>((options_.height >> shrink) * (options_.width >> shrink));
      const float* const sums = layers_[i].sums.data_ptr<float>();
      const std::int64_t width = out.taps[i].size(1);
      for (std::int64_t r = 0; r < count; ++r) {
        float* const tap = out.taps[i].data_ptr<float>() + (begin + r) * width;
        for (std::int64_t c = 0; c < width; ++c) tap[c] = sums[c * kImages + r] / area;
      }
    }
  }
  const std::int64_t width = out.taps.back().size(1);
  const float* const weights = classifier_weight_.data_ptr<float>();
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* const tap = out.taps.back().data_ptr<float>() + r * width;
    for (std::int64_t k = 0; k < options_.classes; ++k) {
      float sum = classifier_bias_.data_ptr<float>()[k];
      for (std::int64_t c = 0; c < width; ++c) sum += weights[k * width + c] * tap[c];
      out.logits.data_ptr<float>()[r * options_.classes + k] = sum;
    }
  }
  return out;
}

}  // namespace fusion
