#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/flat_tensors.h"

namespace fusion {

struct HcnOptions {
  std::int64_t window = 32;   ///< W, frames of a clip; 8, or 16 and more
  std::int64_t joints = 25;   ///< V
  std::int64_t classes = 60;  ///< K
  double dropout = 0.4;       ///< p of every dropout, while training

  bool operator==(const HcnOptions&) const = default;
};

/// Where a training's dropout stands: masks are those of rows `first_row` and on of the training with this seed (model/dropout.h), so
/// they are the same however rows are cut into batches.
struct DropoutRows {
  std::uint64_t seed = 0;
  std::int64_t first_row = 0;
};

/// Hierarchical co-occurrence network over skeletons. B batch, P persons, x [B, 3, W, V, P].
///
/// The motion is x's difference between frames, stretched back to W frames. Position and motion go through streams of the same shapes
/// with separate weights; persons share weights:
///     conv1   1x1, 3 -> 64, relu                                   [64, W, V]
///     conv2   3x1 along time, 64 -> W                              [W, W, V], then joints become the channels: [V, W, W]
///     conv3   3x3, V -> 32, pool                                   [32, W/2, W/2]
///     conv4   3x3, 32 -> 64, dropout, pool                         [64, W/4, W/4]
///     conv5   of both streams joined: 3x3, 128 -> 128, relu, dropout, pool (none if W = 8)
///     conv6   3x3, 128 -> 256, relu, dropout, pool
///     fc7     of the maximum over persons: linear -> 512, relu, dropout
///     fc8     linear -> K
/// Pools are 2x2 maxima; dropout drops whole channels, in fc7 single numbers.
/// Li et al., "Co-occurrence Feature Learning from Skeleton Data for Action Recognition and Detection with Hierarchical Aggregation",
/// IJCAI 2018, in the form of the code of MFAS and MMTM. Differs from that code: no; any number of persons is our addition.
/// Initialisation, as there: weights uniform in +-sqrt(6 / (fan in + fan out)), biases 0.
///
/// Tensors are called as there: conv1.0, conv2, conv3.0, conv4.0, the same with m for motion (conv1m.0, ...), conv5.0, conv6.0, fc7.0,
/// fc8, each .weight and .bias. Not thread-safe. Copies share their weights.
class Hcn {
 public:
  /// What is known of every person before persons are joined; [P, B, ...].
  struct Persons {
    at::Tensor conv1, conv2, conv3;  ///< of the position stream
    at::Tensor conv4;                ///< of both streams, 128 channels
    at::Tensor conv5;                ///< [P, B, 128, W/8, W/8]
  };
  struct Output {
    /// Maxima over persons of conv1 to conv3 (position), conv4 (both streams), conv5 and conv6; then fc7's input and output.
    std::vector<at::Tensor> taps;
    at::Tensor logits;  ///< [B, K]
  };

  /// Throws ModelError if an option is out of range.
  Hcn(const HcnOptions& options, std::uint64_t seed, const at::TensorOptions& tensors = {});

  /// x: [B, 3, W, V, P]. Without `dropout`, evaluation. Throws ModelError if x has another shape.
  Output forward(const at::Tensor& x, const DropoutRows* dropout = nullptr) const;

  // The same in parts, for networks that look in between.
  Persons look(const at::Tensor& x, const DropoutRows* dropout = nullptr) const;
  at::Tensor conv6(const at::Tensor& conv5, const DropoutRows* dropout = nullptr) const;  ///< [P, B, 128, ...] to [P, B, 256, ...]
  at::Tensor fc7(const at::Tensor& flat, const DropoutRows* dropout = nullptr) const;     ///< [B, flat_width()] to [B, 512]
  at::Tensor fc8(const at::Tensor& hidden) const;                                         ///< [B, 512] to [B, K]
  static at::Tensor most_of_persons(const at::Tensor& each) { return each.amax(0); }      ///< [P, B, ...] to [B, ...]

  const HcnOptions& options() const { return options_; }
  std::int64_t flat_width() const;  ///< numbers that fc7 reads
  FlatTensors& parameters() { return parameters_; }
  const FlatTensors& parameters() const { return parameters_; }

 private:
  enum Layer : std::size_t;
  at::Tensor convolve(Layer layer, const at::Tensor& x) const;
  at::Tensor linear(Layer layer, const at::Tensor& x) const;
  at::Tensor drop(int place, const at::Tensor& x, std::int64_t persons, const DropoutRows* dropout) const;
  at::Tensor stream(bool motion, const at::Tensor& x, std::int64_t persons, const DropoutRows* dropout, Persons* seen) const;

  HcnOptions options_;
  FlatTensors parameters_;  ///< weight and bias of each layer
};

}  // namespace fusion
