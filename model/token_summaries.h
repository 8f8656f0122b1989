#pragma once

#include <memory>

#include "model/temporal_head.h"

namespace fusion {

/// The summary that these options ask for; non_local has concatenation's. Tensors: `bert.` (model/bert.h); lstm.weight_ih_l<i>,
/// weight_hh_l<i>, bias_ih_l<i>, bias_hh_l<i>, uniform in +-1 / sqrt(hidden), as torch.nn.LSTM.
///
/// BERT5_BOTH reads the first half of the channels as one stream and the second as the other, and gives both classification tokens side
/// by side (our addition: in the reference no model uses it).
std::unique_ptr<TokenSummary> make_token_summary(const TemporalHeadOptions& options);

/// The non-local block of Wang et al. (CVPR 2018), embedded Gaussian, over all N places of [B, C, T, H, W]:
///     y = softmax(theta(x)^T phi(x) / sqrt(N)) g(x);   z = x + bn(W y)
/// theta, phi, g: 1x1x1 convolutions to the inner width, with bias. The division by the root of the number of places, not of channels,
/// is the reference's. The batch normalisation starts at 0, so the block starts as identity.
///
/// Tensors: `name` + g, theta, phi, W_z.0 (weight [out, in, 1, 1, 1], bias), W_z.1 (batch normalisation).
class NonLocalBlock {
 public:
  void declare(TensorPlan& plan, const std::string& name, std::int64_t channels, std::int64_t inner);
  at::Tensor forward(const at::Tensor& x, bool training) const;

 private:
  struct Conv {
    at::Tensor weight, bias;
    void declare(TensorPlan& plan, const std::string& name, std::int64_t in, std::int64_t out);
    at::Tensor forward(const at::Tensor& x) const;
  };
  Conv g_, theta_, phi_, out_;
  at::Tensor bn_gain_, bn_bias_, bn_mean_, bn_variance_;
};

}  // namespace fusion
