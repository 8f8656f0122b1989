#pragma once

#include <cstdint>
#include <vector>

#include "model/fusion_network.h"
#include "workers/train/stacked_backend.h"

namespace fusion::stacked {

/// What all networks of a pack have in common.
struct NetworkOptions {
  FusionOptions fusion;
  double dropout = 0;
  std::int64_t batch = 0;        ///< rows of a training step
  std::int64_t scored_rows = 0;  ///< rows that are scored at once
};

/// One step of a network in the device's memory, as offsets into it.
///
/// The weights stand transposed, [inputs + 1, outputs]: first the rows of each modality's tap, then those of the previous step's output,
/// and last the bias, as if there were an input that is always 1. A gated step has its gate's columns behind the others. So a step is one
/// product forwards, [a, b, h, 1] W, and its whole gradient, the bias included, is one product backwards.
struct StepLayout {
  FusionOp op = FusionOp::concat_fc;
  Nonlinearity nonlinearity = Nonlinearity::relu;
  std::vector<std::size_t> taps;     ///< [modality]
  std::vector<std::int64_t> widths;  ///< [modality]
  std::int64_t tap_inputs = 0, inputs = 0, outputs = 0;
  std::int64_t weight = 0, gamma = 0, beta = 0, alpha = 0;  ///< among the parameters
  std::int64_t statistics = 0;                              ///< running mean and variance [width] each, among the statistics
  std::int64_t product = 0, hidden = 0, normalised = 0, rstd = 0;  ///< in the whole memory
};

/// One trial's network in the memory of a device: one block that holds parameters, both moments of Adam, the gradient, the parameters of
/// the best epoch, running statistics, and the activations of a batch. No block is shared, so nothing of one trial can reach another.
template <typename T>
class Network {
 public:
  /// Initial weights are those of `from`. Throws OutOfMemory.
  Network(Backend<T>& backend, const FusionNetwork& from, const TapWidths& widths, std::uint64_t seed, const NetworkOptions& options);

  /// Remembers the weights as they are; goes back to what was remembered.
  void keep();
  void restore();
  /// Writes the weights into a network of the same shapes.
  void copy_to(FusionNetwork& to) const;
  /// The first rows' logits of the last batch that was scored, [rows, classes].
  std::vector<T> logits(std::int64_t rows) const;

  std::int64_t parameters() const { return count_; }
  const std::vector<StepLayout>& steps() const { return steps_; }
  std::uint64_t seed() const { return seed_; }
  /// Offsets among the parameters: [width + 1, classes], the bias last.
  std::int64_t classifier() const { return classifier_; }

  T* theta() const { return at(0); }
  T* moment1() const { return at(stride_); }
  T* moment2() const { return at(2 * stride_); }
  T* gradient() const { return at(3 * stride_); }
  T* statistics() const { return at(5 * stride_); }
  T* at(std::int64_t offset) const { return static_cast<T*>(memory_.data()) + offset; }
  T* step_gradient() const { return at(step_gradient_); }        ///< [batch, width], towards a step's output
  T* product_gradient() const { return at(product_gradient_); }  ///< [batch, outputs]
  T* logits() const { return at(logits_); }                      ///< [rows, classes]

 private:
  void lay_out(const FusionNetwork& from, const TapWidths& widths);
  /// Calls visit(tensor, offset, stride): element [output, input] of the tensor is number offset + input * stride + output.
  template <typename Visit>
  void visit_tensors(const FusionNetwork& network, Visit visit) const;

  Backend<T>& backend_;
  NetworkOptions options_;
  std::uint64_t seed_;
  std::vector<StepLayout> steps_;
  std::int64_t count_ = 0, statistics_count_ = 0, classifier_ = 0;
  std::int64_t stride_ = 0;             ///< from one array of parameters to the next
  std::int64_t statistics_stride_ = 0;  ///< from the statistics to those of the best epoch
  std::int64_t step_gradient_ = 0, product_gradient_ = 0, logits_ = 0, total_ = 0;
  DeviceMemory<T> memory_;
};

}  // namespace fusion::stacked
