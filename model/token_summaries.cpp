#include "model/token_summaries.h"

#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/lstm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "base/error.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

class BertSummary : public TokenSummary {
 public:
  explicit BertSummary(const BertOptions& options) : options_(options) {}

  std::int64_t declare(TensorPlan& plan, std::int64_t tokens, std::int64_t width, MaskPlaces& places) override {
    bert_.declare(plan, "bert.", options_, tokens, width, places);
    return width;
  }
  at::Tensor forward(const at::Tensor& tokens, const HeadPass& pass, at::Tensor* sequence) const override {
    const at::Tensor out = bert_.forward(tokens, pass);  // [B, T + 1, C]
    if (sequence) *sequence = out;
    return out.select(1, 0);
  }

 private:
  BertOptions options_;
  Bert bert_;
};

class BertPairSummary : public TokenSummary {
 public:
  explicit BertPairSummary(const BertOptions& options) : options_(options) {}

  std::int64_t declare(TensorPlan& plan, std::int64_t tokens, std::int64_t width, MaskPlaces& places) override {
    half_ = width / 2;
    bert_.declare(plan, "bert.", options_, tokens, half_, places);
    return width;
  }
  at::Tensor forward(const at::Tensor& tokens, const HeadPass& pass, at::Tensor* sequence) const override {
    const BertPair::Pair out = bert_.forward({tokens.narrow(2, 0, half_), tokens.narrow(2, half_, half_)}, pass);
    const at::Tensor joined = at::cat({out[0], out[1]}, 2);  // [B, T + 1, C]
    if (sequence) *sequence = joined;
    return joined.select(1, 0);
  }

 private:
  BertOptions options_;
  std::int64_t half_ = 0;
  BertPair bert_;
};

class MeanSummary : public TokenSummary {
 public:
  std::int64_t declare(TensorPlan&, std::int64_t, std::int64_t width, MaskPlaces&) override { return width; }
  at::Tensor forward(const at::Tensor& tokens, const HeadPass&, at::Tensor*) const override {
    return tokens.mean(at::IntArrayRef{1});
  }
};

class ConcatenationSummary : public TokenSummary {
 public:
  std::int64_t declare(TensorPlan&, std::int64_t tokens, std::int64_t width, MaskPlaces&) override { return tokens * width; }
  at::Tensor forward(const at::Tensor& tokens, const HeadPass&, at::Tensor*) const override {
    return tokens.transpose(1, 2).reshape({tokens.size(0), -1});  // [B, C T]
  }
};

class LstmSummary : public TokenSummary {
 public:
  LstmSummary(std::int64_t hidden, std::int64_t layers) : hidden_(hidden), layers_(layers) {}

  std::int64_t declare(TensorPlan& plan, std::int64_t, std::int64_t width, MaskPlaces&) override {
    weights_.resize(static_cast<std::size_t>(4 * layers_));
    const double bound = 1.0 / std::sqrt(static_cast<double>(hidden_));
    for (std::int64_t i = 0; i < layers_; ++i) {
      const std::string layer = "_l" + std::to_string(i);
      at::Tensor* const holder = &weights_[static_cast<std::size_t>(4 * i)];
      plan.parameter("lstm.weight_ih" + layer, {4 * hidden_, i == 0 ? width : hidden_}, holder[0], fill_uniform(bound));
      plan.parameter("lstm.weight_hh" + layer, {4 * hidden_, hidden_}, holder[1], fill_uniform(bound));
      plan.parameter("lstm.bias_ih" + layer, {4 * hidden_}, holder[2], fill_uniform(bound));
      plan.parameter("lstm.bias_hh" + layer, {4 * hidden_}, holder[3], fill_uniform(bound));
    }
    return hidden_;
  }
  at::Tensor forward(const at::Tensor& tokens, const HeadPass&, at::Tensor*) const override {
    const at::Tensor zeros = at::zeros({layers_, tokens.size(0), hidden_}, tokens.options().requires_grad(false));
    const at::Tensor out = std::get<0>(
        at::lstm(tokens, {zeros, zeros}, weights_, true, layers_, 0.0, at::GradMode::is_enabled(), false, true));  // [B, T, hidden]
    return out.select(1, out.size(1) - 1);
  }

 private:
  std::int64_t hidden_, layers_;
  std::vector<at::Tensor> weights_;
};

}  // namespace

std::unique_ptr<TokenSummary> make_token_summary(const TemporalHeadOptions& options) {
  switch (options.kind) {
    case TemporalKind::bert:
      if (options.bert.variant == BertClass::bert5_both) return std::make_unique<BertPairSummary>(options.bert);
      return std::make_unique<BertSummary>(options.bert);
    case TemporalKind::mean: return std::make_unique<MeanSummary>();
    case TemporalKind::lstm: return std::make_unique<LstmSummary>(options.hidden_width(), options.lstm_layers);
    case TemporalKind::concatenation:
    case TemporalKind::non_local: return std::make_unique<ConcatenationSummary>();
  }
  throw ModelError("temporal head number " + std::to_string(static_cast<int>(options.kind)) + " is unknown");
}

void NonLocalBlock::Conv::declare(TensorPlan& plan, const std::string& name, std::int64_t in, std::int64_t out) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(in));
  plan.parameter(name + ".weight", {out, in, 1, 1, 1}, weight, fill_uniform(bound));
  plan.parameter(name + ".bias", {out}, bias, fill_uniform(bound));
}

at::Tensor NonLocalBlock::Conv::forward(const at::Tensor& x) const { return at::conv3d(x, weight, bias); }

void NonLocalBlock::declare(TensorPlan& plan, const std::string& name, std::int64_t channels, std::int64_t inner) {
  g_.declare(plan, name + "g", channels, inner);
  out_.declare(plan, name + "W_z.0", inner, channels);
  plan.parameter(name + "W_z.1.weight", {channels}, bn_gain_, fill_zeros());
  plan.parameter(name + "W_z.1.bias", {channels}, bn_bias_, fill_zeros());
  plan.buffer(name + "W_z.1.running_mean", {channels}, bn_mean_, fill_zeros());
  plan.buffer(name + "W_z.1.running_var", {channels}, bn_variance_, fill_ones());
  theta_.declare(plan, name + "theta", channels, inner);
  phi_.declare(plan, name + "phi", channels, inner);
}

at::Tensor NonLocalBlock::forward(const at::Tensor& x, bool training) const {
  const at::Tensor g = g_.forward(x).flatten(2).transpose(1, 2);          // [B, N, inner]
  const at::Tensor theta = theta_.forward(x).flatten(2).transpose(1, 2);  // [B, N, inner]
  const at::Tensor phi = phi_.forward(x).flatten(2);                      // [B, inner, N]
  const at::Tensor affinity = at::softmax(at::matmul(theta, phi).div(std::sqrt(static_cast<double>(phi.size(2)))), -1);
  std::vector<std::int64_t> sizes = x.sizes().vec();
  sizes[1] = g.size(2);
  const at::Tensor y = at::matmul(affinity, g).transpose(1, 2).reshape(sizes);  // [B, inner, T, H, W]
  return x.add(at::batch_norm(out_.forward(y), bn_gain_, bn_bias_, bn_mean_, bn_variance_, training, 0.1, 1e-5, false));
}

}  // namespace fusion
