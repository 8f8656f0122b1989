#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/flat_tensors.h"
#include "space/architecture.h"
#include "space/dataset_spec.h"

namespace fusion {

/// Widths of the taps: [modality][tap].
using TapWidths = std::vector<std::vector<std::int64_t>>;
TapWidths tap_widths(const DatasetSpec& dataset);

struct FusionOptions {
  std::int64_t width = 16;    ///< R, outputs of every step
  std::int64_t classes = 2;   ///< outputs of the network
  bool batchnorm = false;     ///< after the activation
  bool alphas = false;        ///< a learned weight between the first modality and the others
};

/// A fusion network over the taps of frozen or trained backbones, for any number of modalities M >= 1.
///
/// B batch, R width, step i reads tap t_m of each modality m:
///     s_i = sigmoid(alpha_i)                                       only with alphas; alpha_i is one number
///     x_i = [s_i a, (1 - s_i) b, (1 - s_i) c, ..., h_(i-1)]        a, b, c the taps in the order of the modalities
///     h_i = D_i * bn(op(x_i))                                      op: space/architecture.h; D_i dropout; bn only with batchnorm
///     logits = V h_last + d
/// Perez-Rua et al., "MFAS: Multimodal Fusion Architecture Search", CVPR 2019. As in the authors' code, batch normalisation (eps 1e-5,
/// momentum 0.1) comes after the activation and the alphas do not touch h. Differs from it: every combination of batchnorm and dropout
/// is honoured (there one was ignored and another crashed), gated steps and more than two modalities are our addition.
///
/// Tensors are called layer<i>.linear.weight [R, in], .linear.bias [R], .gate.weight, .gate.bias (glu only), .bn.weight, .bn.bias,
/// .alpha [1]; classifier.weight [classes, R], classifier.bias; buffers layer<i>.bn.running_mean, .bn.running_var.
///
/// Not thread-safe; one instance belongs to one trainer. Copies share their weights.
class FusionNetwork {
 public:
  /// What the network computed on its way, per step.
  struct Trace {
    std::vector<at::Tensor> fused;   ///< x_i [B, in]
    std::vector<at::Tensor> hidden;  ///< h_i [B, R]
  };

  /// Initial weights are drawn from `seed`: PyTorch's default for linear layers, alphas from N(0, 0.1^2), batch normalisation 1 and 0.
  /// `tensors` gives device and floating type (float where it says nothing). Throws ModelError unless every tap exists and the sizes
  /// are positive.
  FusionNetwork(const Architecture& architecture, const TapWidths& widths, const FusionOptions& options, std::uint64_t seed,
                const at::TensorOptions& tensors = {});

  /// [a, b, ...] of one step: taps[m][i] is [B, width]. Differentiable, for backbones that are trained along.
  at::Tensor join(std::size_t step, const std::vector<std::vector<at::Tensor>>& taps) const;

  /// joined[i]: [B, sum of the step's tap widths], as `join` makes it. masks: none, or one [B, R] per step to multiply h_i with
  /// (model/dropout.h). Returns logits [B, classes]. While training, batch normalisation uses the batch's statistics (B >= 2) and
  /// updates the running ones.
  at::Tensor forward(const std::vector<at::Tensor>& joined, const std::vector<at::Tensor>& masks, bool training,
                     Trace* trace = nullptr) const;

  const Architecture& architecture() const { return architecture_; }
  const FusionOptions& options() const { return options_; }
  /// Columns that a step's linear layer reads.
  std::int64_t input_width(std::size_t step) const { return steps_[step].tap_columns + (step == 0 ? 0 : options_.width); }
  std::int64_t tap_columns(std::size_t step) const { return steps_[step].tap_columns; }

  FlatTensors& parameters() { return parameters_; }
  const FlatTensors& parameters() const { return parameters_; }
  FlatTensors& buffers() { return buffers_; }
  const FlatTensors& buffers() const { return buffers_; }
  /// Parameters and buffers of one fusion step, without its alpha, under names relative to the step ("linear.weight"): what weight
  /// sharing shares.
  NamedTensors shared_tensors(std::size_t step) const;

 private:
  struct Step {
    FusionOp op = FusionOp::concat_fc;
    Activation activation = Activation::relu;
    std::vector<std::int32_t> taps;
    std::int64_t tap_columns = 0;
    at::Tensor weight, bias, gate_weight, gate_bias, bn_weight, bn_bias, bn_mean, bn_var, alpha;
    at::Tensor first_modality, other_modalities;  ///< [tap_columns] of 1 where that is and 0 elsewhere; with alphas only
  };
  FlatTensors::Shapes parameter_shapes() const;
  void find_tensors();
  void initialise(std::uint64_t seed);

  Architecture architecture_;
  FusionOptions options_;
  std::vector<Step> steps_;
  FlatTensors parameters_, buffers_;
  at::Tensor classifier_weight_, classifier_bias_;
};

}  // namespace fusion
