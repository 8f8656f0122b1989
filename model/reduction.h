#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/enum_names.h"
#include "model/tensor_plan.h"

namespace fusion {

/// A block that narrows features before a temporal head. FRAB: it stands behind an untouched backbone. FRMB: it takes the place of the
/// backbone's last block.
enum class ReductionKind {
  none,
  bottleneck,  ///< of ResNeXt (32 groups) and, with one group, of SlowFast
  inception    ///< of I3D
};
template <>
struct EnumNames<ReductionKind> {
  static constexpr std::array<std::pair<ReductionKind, std::string_view>, 3> kTable{
      {{ReductionKind::none, "none"}, {ReductionKind::bottleneck, "bottleneck"}, {ReductionKind::inception, "inception"}}};
  static constexpr std::string_view kWhat = "reduction of the features";
};

/// Which neighbours a block's inner convolutions see.
enum class ReductionKernel {
  time,   ///< 3x1x1: for tokens, which have no place in an image. The reference has no such thing
  volume  ///< 3x3x3, as in the reference
};
template <>
struct EnumNames<ReductionKernel> {
  static constexpr std::array<std::pair<ReductionKernel, std::string_view>, 2> kTable{
      {{ReductionKernel::time, "time"}, {ReductionKernel::volume, "volume"}}};
  static constexpr std::string_view kWhat = "kernel of a reduction";
};

struct ReductionOptions {
  ReductionKind kind = ReductionKind::none;
  ReductionKernel kernel = ReductionKernel::time;
  std::int64_t width = 512;  ///< bottleneck: channels behind it
  std::int64_t inner = 0;    ///< bottleneck: channels of the inner convolution; 0: half the width, as in the reference
  std::int64_t groups = 32;  ///< bottleneck: of the inner convolution, a divisor of its channels; 32 in ResNeXt, 1 in SlowFast
  /// inception: channels of the branches: 1x1x1 | 1x1x1, 3x3x3 | 1x1x1, 3x3x3 | pooling, 1x1x1.
  std::array<std::int64_t, 6> branches{192, 96, 192, 24, 64, 64};

  bool operator==(const ReductionOptions&) const = default;

  std::int64_t inner_width() const { return inner == 0 ? width / 2 : inner; }
  /// Channels behind the block where `channels` enter.
  std::int64_t width_after(std::int64_t channels) const;
  std::vector<std::string> problems(const std::string& subject) const;
};

/// A convolution of stride 1 that keeps the size (zeros around), without bias, and batch normalisation behind it. Weights start Kaiming
/// normal (fan in), batch normalisation 1 and 0.
class ConvBatchNorm {
 public:
  struct Options {
    std::int64_t in = 1, out = 1;
    std::array<std::int64_t, 3> kernel{1, 1, 1};
    std::int64_t groups = 1;
    double eps = 1e-5, momentum = 0.1;
  };
  /// Tensors: `conv`.weight [out, in / groups, *kernel]; `bn`.weight, .bias and buffers .running_mean, .running_var [out].
  void declare(TensorPlan& plan, const std::string& conv, const std::string& bn, const Options& options);
  /// x [B, in, T, H, W]. Throws ModelError while training with a single value per channel, whose variance is not defined.
  at::Tensor forward(const at::Tensor& x, bool training) const;

 private:
  Options options_;
  at::Tensor weight_, gain_, bias_, mean_, variance_;
};

/// 1x1x1, 3x3x3 in groups, 1x1x1, each with batch normalisation, ReLU behind the first two; plus a shortcut (1x1x1 and batch
/// normalisation, or nothing where no channels change and none is asked for); ReLU.
///
/// Tensors: `name` + conv1, bn1, conv2, bn2, conv3, bn3, downsample.0, downsample.1.
class Bottleneck {
 public:
  struct Options {
    std::int64_t in = 2048, inner = 256, out = 512, groups = 32;
    ReductionKernel kernel = ReductionKernel::volume;
    bool shortcut = true;  ///< a layer in the residual path; needed where `in` and `out` differ
  };
  void declare(TensorPlan& plan, const std::string& name, const Options& options);
  at::Tensor forward(const at::Tensor& x, bool training) const;

 private:
  bool shortcut_ = true;
  ConvBatchNorm first_, second_, third_, beside_;
};

/// The Inception block of I3D: four branches side by side, see ReductionOptions::branches. Units of convolution, batch normalisation (eps
/// 1e-3, momentum 0.01) and ReLU; the max pooling sees zeros around its input, as in the reference.
///
/// Tensors: `name` + {b0, b1a, b1b, b2a, b2b, b3b}.conv3d and .bn.
class InceptionBlock {
 public:
  void declare(TensorPlan& plan, const std::string& name, std::int64_t in, const std::array<std::int64_t, 6>& branches,
               ReductionKernel kernel);
  at::Tensor forward(const at::Tensor& x, bool training) const;

 private:
  std::array<std::int64_t, 3> kernel_{3, 3, 3};
  std::array<ConvBatchNorm, 6> units_;
};

/// The block that some options ask for.
class Reduction {
 public:
  void declare(TensorPlan& plan, const std::string& name, std::int64_t channels, const ReductionOptions& options);
  /// [B, C, T, H, W] to [B, width_after(C), T, H, W].
  at::Tensor forward(const at::Tensor& x, bool training) const;

 private:
  ReductionKind kind_ = ReductionKind::none;
  Bottleneck bottleneck_;
  InceptionBlock inception_;
};

}  // namespace fusion
