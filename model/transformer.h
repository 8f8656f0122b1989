#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>

#include "model/head_pass.h"
#include "model/tensor_plan.h"

namespace fusion {

/// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
at::Tensor gelu_tanh(const at::Tensor& x);

/// x / |x| over the last dimension. No epsilon, as in the reference: a row of zeros becomes NaN.
at::Tensor l2_normalise(const at::Tensor& x);

/// Layer normalisation as the BERT head's authors wrote it, over the last dimension C:
///     y = a (x - mean) / (std + 1e-6) + b
/// std has n - 1 in its denominator and the epsilon stands outside the root, so it is not torch's. Tensors: `name` + a_2, b_2 [C].
struct ReferenceLayerNorm {
  at::Tensor gain, bias;

  void declare(TensorPlan& plan, const std::string& name, std::int64_t width);
  at::Tensor forward(const at::Tensor& x) const;
};

/// Sizes and dropout of a transformer block. C width, N tokens.
struct TransformerOptions {
  std::int64_t width = 512;  ///< a multiple of `heads`
  std::int64_t heads = 8;
  std::int64_t inner = 2048;  ///< of the feed-forward layers
  double dropout = 0.1;       ///< at four places of a block
  LinearLayer::Start start = LinearLayer::Start::torch;
};

/// Multi-head attention: softmax(q k^T / sqrt(C / heads)) v per head, all heads side by side, then one linear layer. Hidden keys get the
/// score -1e9 before the softmax; dropout is on the probabilities. Tensors: `name` + linear_layers.{0,1,2} (query, key, value) and
/// output_linear, weight [C, C] and bias [C] each.
class MultiHeadAttention {
 public:
  /// With names that end in `suffix`, for the two-stream block: linear_layers1.0.weight.
  void declare(TensorPlan& plan, const std::string& name, const TransformerOptions& options, MaskPlaces& places,
               const std::string& suffix = "");

  /// query, key, value [B, N, C]; visible undefined or broadcastable to [B, heads, N, N], 0 where a key is hidden. Returns [B, N, C].
  at::Tensor forward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& visible,
                     const HeadPass& pass) const;
  /// The two halves of `forward`: probabilities [B, heads, N, N] without dropout, and what they make of the values.
  at::Tensor probabilities(const at::Tensor& query, const at::Tensor& key, const at::Tensor& visible) const;
  at::Tensor apply(const at::Tensor& probabilities, const at::Tensor& value, const HeadPass& pass) const;

 private:
  at::Tensor split(const at::Tensor& x) const;  ///< [B, N, C] to [B, heads, N, C / heads]

  TransformerOptions options_;
  std::array<LinearLayer, 3> inputs_;
  LinearLayer output_;
  std::uint32_t place_ = 0;
};

/// Linear(C, inner), tanh-GELU, dropout, Linear(inner, C): `name` + w_1, w_2.
class FeedForward {
 public:
  void declare(TensorPlan& plan, const std::string& name, const TransformerOptions& options, MaskPlaces& places);
  at::Tensor forward(const at::Tensor& x, const HeadPass& pass) const;

 private:
  LinearLayer first_, second_;
  double dropout_ = 0;
  std::uint32_t place_ = 0;
};

/// A pre-norm residual block, without a norm behind it:
///     x <- x + drop(attention(norm(x)))
///     x <- x + drop(feed_forward(norm(x)))
///     x <- drop(x)
/// Tensors: `name` + attention, feed_forward, input_sublayer.norm, output_sublayer.norm.
class TransformerBlock {
 public:
  void declare(TensorPlan& plan, const std::string& name, const TransformerOptions& options, MaskPlaces& places);
  /// x [B, N, C], visible as in MultiHeadAttention. Returns [B, N, C].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& visible, const HeadPass& pass) const;

 private:
  MultiHeadAttention attention_;
  FeedForward feed_forward_;
  ReferenceLayerNorm input_norm_, output_norm_;
  double dropout_ = 0;
  std::uint32_t input_place_ = 0, output_place_ = 0, last_place_ = 0;
};

/// The block of BERT5_BOTH: two streams with their own attention and feed-forward layers, whose attention maps are joined by an
/// elementwise maximum that is applied to the values of both. They share the two norms. Tensors: `name` + attention.linear_layers1, 2 and
/// attention.output_linear1, 2; feed_forward_rgb, feed_forward_flow; the norms as in TransformerBlock.
class PairedTransformerBlock {
 public:
  using Pair = std::array<at::Tensor, 2>;

  void declare(TensorPlan& plan, const std::string& name, const TransformerOptions& options, MaskPlaces& places);
  Pair forward(const Pair& x, const at::Tensor& visible, const HeadPass& pass) const;

 private:
  std::array<MultiHeadAttention, 2> attention_;
  std::array<FeedForward, 2> feed_forward_;
  ReferenceLayerNorm input_norm_, output_norm_;
  double dropout_ = 0;
  std::array<std::uint32_t, 2> input_places_{}, output_places_{}, last_places_{};
};

}  // namespace fusion
