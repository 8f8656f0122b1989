#include "model/bert.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>

#include <cmath>

#include "base/error.h"

namespace fusion {
namespace {

/// Standard deviation of the initial classification token and positions.
double token_deviation(BertClass variant, std::int64_t width) {
  const bool wide = variant == BertClass::bert || variant == BertClass::bert2;
  return wide ? 1.0 / std::sqrt(static_cast<double>(width)) : 0.02;
}

TransformerOptions block_options(const BertOptions& options, std::int64_t width) {
  const bool torch_start = options.variant == BertClass::bert3 || options.variant == BertClass::bert5 ||
                           options.variant == BertClass::bert7 || options.variant == BertClass::bert5_both;
  return {width, options.heads, options.variant == BertClass::bert3 ? width : 4 * width, options.dropout,
          torch_start ? LinearLayer::Start::torch : LinearLayer::Start::normal};
}

/// sin and cos of pos * 64^(-2 i / C) on even and odd channels: [1, length, C].
void fill_sinusoid(const at::Tensor& table) {
  const at::Tensor values = table.to(c10::kCPU, c10::kDouble).contiguous();
  const std::int64_t length = table.size(1), width = table.size(2);
  double* const out = values.data_ptr<double>();
  for (std::int64_t pos = 0; pos < length; ++pos) {
    for (std::int64_t c = 0; c < width; ++c) {
      const double exponent = static_cast<double>(c - c % 2) / static_cast<double>(width);
      const double angle = static_cast<double>(pos) * std::pow(64.0, -exponent);
      out[pos * width + c] = c % 2 == 0 ? std::sin(angle) : std::cos(angle);
    }
  }
  table.copy_(values);
}

void check_tokens(const at::Tensor& x, std::int64_t tokens, const at::Tensor& cls) {
  if (x.dim() == 3 && x.size(1) == tokens && x.size(2) == cls.size(2)) return;
  std::string shape;
  for (const std::int64_t n : x.sizes()) shape += (shape.empty() ? "" : ", ") + std::to_string(n);
  throw ModelError("BERT: expected [B, " + std::to_string(tokens) + ", " + std::to_string(cls.size(2)) + "], got [" + shape + "]");
}

/// [B, T + 1], or undefined where all are visible.
at::Tensor visible_tokens(const at::Tensor& x, double keep, std::uint32_t place, const HeadPass& pass) {
  const std::int64_t rows = x.size(0), tokens = x.size(1);
  if (pass.visible.defined()) {
    if (pass.visible.dim() == 2 && pass.visible.size(0) == rows && pass.visible.size(1) == tokens + 1) return pass.visible;
    throw ModelError("BERT: the mask of visible tokens: expected [" + std::to_string(rows) + ", " + std::to_string(tokens + 1) + "]");
  }
  if (!pass.training || keep == 1) return {};
  return at::cat({at::ones({rows, 1}, x.options().requires_grad(false)), draw_kept(rows, tokens, keep, place, pass, x)}, 1);
}

/// [B, 1, 1, T + 1]: hides columns.
at::Tensor as_key_mask(const at::Tensor& visible) { return visible.defined() ? visible.unsqueeze(1).unsqueeze(1) : visible; }

}  // namespace

std::vector<std::string> BertOptions::problems(std::int64_t tokens, std::int64_t width, const std::string& subject) const {
  std::vector<std::string> found;
  const auto expect = [&](bool right, const std::string& what, const std::string& got) {
    if (!right) found.push_back(subject + ": " + what + ", got " + got);
  };
  expect(tokens >= 1 && tokens <= 4096, "tokens: expected 1 to 4096", std::to_string(tokens));
  expect(width >= 2 && width <= 65536, "width of the tokens: expected 2 to 65536", std::to_string(width));
  expect(heads >= 1 && heads <= 256, "heads: expected 1 to 256", std::to_string(heads));
  if (heads >= 1) {
    expect(width % heads == 0, "heads: expected a divisor of the width of the tokens, " + std::to_string(width),
           std::to_string(heads));
  }
  expect(layers >= 1 && layers <= 64, "layers: expected 1 to 64", std::to_string(layers));
  expect(keep >= 0 && keep <= 1, "keep: expected a probability in [0, 1]", std::to_string(keep));
  expect(dropout >= 0 && dropout < 1, "dropout: expected a probability in [0, 1)", std::to_string(dropout));
  return found;
}

void BertEmbedding::declare(TensorPlan& plan, const std::string& name, BertClass variant, std::int64_t length, std::int64_t width,
                            double dropout, MaskPlaces& places) {
  dropout_ = dropout;
  place_ = places.next();
  if (variant == BertClass::bert6) {
    plan.buffer(name + "position.pe", {1, length, width}, table_, [](const at::Tensor& table, Rng&) { fill_sinusoid(table); });
    return;
  }
  const std::string learned = name + "learnedPosition.";
  if (variant == BertClass::bert) {
    plan.parameter(learned + "a_2", {length, width}, gain_, fill_ones());
    plan.parameter(learned + "b_2", {length, width}, bias_, fill_zeros());
  }
  plan.parameter(learned + "pe", {1, length, width}, table_, fill_normal(token_deviation(variant, width)));
}

at::Tensor BertEmbedding::forward(const at::Tensor& x, const HeadPass& pass) const {
  at::Tensor positions = table_.narrow(1, 0, x.size(1));
  if (gain_.defined()) positions = gain_.narrow(0, 0, x.size(1)).mul(positions).add(bias_.narrow(0, 0, x.size(1)));
  return fusion::dropout(positions.add(x), dropout_, place_, pass);
}

void Bert::declare(TensorPlan& plan, const std::string& name, const BertOptions& options, std::int64_t tokens, std::int64_t width,
                   MaskPlaces& places) {
  options_ = options;
  tokens_ = tokens;
  visible_place_ = places.next();
  const double deviation = token_deviation(options.variant, width);
  plan.parameter(name + "clsToken", {1, 1, width}, cls_, fill_normal(deviation));
  if (options.variant == BertClass::bert) {
    plan.parameter(name + "a_2", {1, 1, width}, cls_gain_, fill_ones());
    plan.parameter(name + "b_2", {1, 1, width}, cls_bias_, fill_zeros());
  }
  if (options.variant == BertClass::bert7) plan.parameter(name + "maskToken", {1, 1, width}, mask_token_, fill_normal(deviation));
  embedding_.declare(plan, name + "embedding.", options.variant, tokens + 1, width, options.dropout, places);
  blocks_.resize(static_cast<std::size_t>(options.layers));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i].declare(plan, name + "transformer_blocks." + std::to_string(i) + ".", block_options(options, width), places);
  }
}

at::Tensor Bert::embed(const at::Tensor& tokens, const at::Tensor& visible, const HeadPass& pass) const {
  at::Tensor cls = cls_;
  if (cls_gain_.defined()) cls = cls.mul(cls_gain_).add(cls_bias_);
  at::Tensor x = at::cat({cls.expand({tokens.size(0), 1, tokens.size(2)}), tokens}, 1);  // [B, T + 1, C]
  if (mask_token_.defined() && visible.defined()) x = at::where(visible.unsqueeze(2).eq(0), mask_token_, x);
  return embedding_.forward(x, pass);
}

at::Tensor Bert::forward(const at::Tensor& tokens, const HeadPass& pass) const {
  check_tokens(tokens, tokens_, cls_);
  const at::Tensor visible = visible_tokens(tokens, options_.keep, visible_place_, pass);
  at::Tensor x = embed(tokens, visible, pass);
  const at::Tensor keys = mask_token_.defined() ? at::Tensor() : as_key_mask(visible);
  for (const TransformerBlock& block : blocks_) x = block.forward(x, keys, pass);
  return x;
}

void BertPair::declare(TensorPlan& plan, const std::string& name, const BertOptions& options, std::int64_t tokens, std::int64_t width,
                       MaskPlaces& places) {
  options_ = options;
  tokens_ = tokens;
  visible_place_ = places.next();
  const double deviation = token_deviation(options.variant, width);
  plan.parameter(name + "clsToken_rgb", {1, 1, width}, cls_[0], fill_normal(deviation));
  plan.parameter(name + "clsToken_flow", {1, 1, width}, cls_[1], fill_normal(deviation));
  embeddings_[0].declare(plan, name + "embedding1.", options.variant, tokens + 1, width, options.dropout, places);
  embeddings_[1].declare(plan, name + "embedding2.", options.variant, tokens + 1, width, options.dropout, places);
  blocks_.resize(static_cast<std::size_t>(options.layers));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i].declare(plan, name + "transformer_blocks." + std::to_string(i) + ".", block_options(options, width), places);
  }
}

BertPair::Pair BertPair::forward(const Pair& tokens, const HeadPass& pass) const {
  const bool reference = options_.pair_rule == PairRule::reference;
  const at::Tensor keys = as_key_mask(visible_tokens(tokens[0], options_.keep, visible_place_, pass));
  Pair embedded;
  for (std::size_t i = 0; i < 2; ++i) {
    check_tokens(tokens[i], tokens_, cls_[i]);
    const at::Tensor x = at::cat({cls_[i].expand({tokens[i].size(0), 1, tokens[i].size(2)}), tokens[i]}, 1);
    embedded[i] = embeddings_[reference ? 0 : i].forward(x, pass);
  }
  Pair x = embedded;
  for (const PairedTransformerBlock& block : blocks_) x = block.forward(reference ? embedded : x, keys, pass);
  return x;
}

}  // namespace fusion
