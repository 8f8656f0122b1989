#include "model/transformer.h"

#include <ATen/ops/gelu.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/softmax.h>

#include <cmath>

namespace fusion {

at::Tensor gelu_tanh(const at::Tensor& x) { return at::gelu(x, "tanh"); }

at::Tensor l2_normalise(const at::Tensor& x) { return x.div(at::linalg_vector_norm(x, 2, at::IntArrayRef{-1}, true)); }

void ReferenceLayerNorm::declare(TensorPlan& plan, const std::string& name, std::int64_t width) {
  plan.parameter(name + "a_2", {width}, gain, fill_ones());
  plan.parameter(name + "b_2", {width}, bias, fill_zeros());
}

at::Tensor ReferenceLayerNorm::forward(const at::Tensor& x) const {
  const at::Tensor centred = x.sub(x.mean(at::IntArrayRef{-1}, true));
  const at::Tensor deviation = x.std(at::IntArrayRef{-1}, true, true);
  return centred.div(deviation.add(1e-6)).mul(gain).add(bias);
}

void MultiHeadAttention::declare(TensorPlan& plan, const std::string& name, const TransformerOptions& options, MaskPlaces& places,
                                 const std::string& suffix) {
  options_ = options;
  place_ = places.next();
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    inputs_[i].declare(plan, name + "linear_layers" + suffix + "." + std::to_string(i), options.width, options.width, options.start);
  }
  output_.declare(plan, name + "output_linear" + suffix, options.width, options.width, options.start);
}

at::Tensor MultiHeadAttention::split(const at::Tensor& x) const {
  return x.view({x.size(0), x.size(1), options_.heads, options_.width / options_.heads}).transpose(1, 2);
}

at::Tensor MultiHeadAttention::probabilities(const at::Tensor& query, const at::Tensor& key, const at::Tensor& visible) const {
  const at::Tensor q = split(inputs_[0].forward(query));  // [B, heads, N, d]
  const at::Tensor k = split(inputs_[1].forward(key));
  at::Tensor scores = at::matmul(q, k.transpose(2, 3)).div(std::sqrt(static_cast<double>(q.size(3))));  // [B, heads, N, N]
  if (visible.defined()) scores = scores.masked_fill(visible.eq(0), -1e9);
  return at::softmax(scores, -1);
}

at::Tensor MultiHeadAttention::apply(const at::Tensor& probabilities, const at::Tensor& value, const HeadPass& pass) const {
  const at::Tensor v = split(inputs_[2].forward(value));
  const at::Tensor joined = at::matmul(dropout(probabilities, options_.dropout, place_, pass), v);  // [B, heads, N, d]
  return output_.forward(joined.transpose(1, 2).reshape(value.sizes()));                            // [B, N, C]
}

at::Tensor MultiHeadAttention::forward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                       const at::Tensor& visible, const HeadPass& pass) const {
  return apply(probabilities(query, key, visible), value, pass);
}

void FeedForward::declare(TensorPlan& plan, const std::string& name, const TransformerOptions& options, MaskPlaces& places) {
  dropout_ = options.dropout;
  place_ = places.next();
  first_.declare(plan, name + "w_1", options.width, options.inner, options.start);
  second_.declare(plan, name + "w_2", options.inner, options.width, options.start);
}

at::Tensor FeedForward::forward(const at::Tensor& x, const HeadPass& pass) const {
  return second_.forward(dropout(gelu_tanh(first_.forward(x)), dropout_, place_, pass));
}

void TransformerBlock::declare(TensorPlan& plan, const std::string& name, const TransformerOptions& options, MaskPlaces& places) {
  dropout_ = options.dropout;
  attention_.declare(plan, name + "attention.", options, places);
  feed_forward_.declare(plan, name + "feed_forward.", options, places);
  input_norm_.declare(plan, name + "input_sublayer.norm.", options.width);
  output_norm_.declare(plan, name + "output_sublayer.norm.", options.width);
  input_place_ = places.next();
  output_place_ = places.next();
  last_place_ = places.next();
}

at::Tensor TransformerBlock::forward(const at::Tensor& x, const at::Tensor& visible, const HeadPass& pass) const {
  const at::Tensor normed = input_norm_.forward(x);
  at::Tensor h = x.add(dropout(attention_.forward(normed, normed, normed, visible, pass), dropout_, input_place_, pass));
  h = h.add(dropout(feed_forward_.forward(output_norm_.forward(h), pass), dropout_, output_place_, pass));
  return dropout(h, dropout_, last_place_, pass);
}

void PairedTransformerBlock::declare(TensorPlan& plan, const std::string& name, const TransformerOptions& options,
                                     MaskPlaces& places) {
  dropout_ = options.dropout;
  attention_[0].declare(plan, name + "attention.", options, places, "1");
  attention_[1].declare(plan, name + "attention.", options, places, "2");
  feed_forward_[0].declare(plan, name + "feed_forward_rgb.", options, places);
  feed_forward_[1].declare(plan, name + "feed_forward_flow.", options, places);
  input_norm_.declare(plan, name + "input_sublayer.norm.", options.width);
  output_norm_.declare(plan, name + "output_sublayer.norm.", options.width);
  for (std::size_t i = 0; i < 2; ++i) {
    input_places_[i] = places.next();
    output_places_[i] = places.next();
    last_places_[i] = places.next();
  }
}

PairedTransformerBlock::Pair PairedTransformerBlock::forward(const Pair& x, const at::Tensor& visible, const HeadPass& pass) const {
  const Pair normed{input_norm_.forward(x[0]), input_norm_.forward(x[1])};
  const at::Tensor joined = at::maximum(attention_[0].probabilities(normed[0], normed[0], visible),
                                        attention_[1].probabilities(normed[1], normed[1], visible));
  Pair out;
  for (std::size_t i = 0; i < 2; ++i) {
    at::Tensor h = x[i].add(dropout(attention_[i].apply(joined, normed[i], pass), dropout_, input_places_[i], pass));
    h = h.add(dropout(feed_forward_[i].forward(output_norm_.forward(h), pass), dropout_, output_places_[i], pass));
    out[i] = dropout(h, dropout_, last_places_[i], pass);
  }
  return out;
}

}  // namespace fusion
