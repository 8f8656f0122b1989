#include "model/tensor_plan.h"

#include <ATen/ops/linear.h>

#include <cmath>

#include "model/initialise.h"
#include "model/random_streams.h"
#include "model/torch_compat.h"

namespace fusion {

Fill fill_zeros() {
  return [](const at::Tensor& tensor, Rng&) { tensor.zero_(); };
}
Fill fill_ones() {
  return [](const at::Tensor& tensor, Rng&) { tensor.fill_(1.0); };
}
Fill fill_normal(double deviation) {
  return [deviation](const at::Tensor& tensor, Rng& rng) { fill_normal(tensor, deviation, rng); };
}
Fill fill_uniform(double bound) {
  return [bound](const at::Tensor& tensor, Rng& rng) { fill_uniform(tensor, bound, rng); };
}

void TensorPlan::parameter(const std::string& name, const Shape& shape, at::Tensor& holder, Fill fill) {
  parameters_.push_back({name, shape, &holder, std::move(fill)});
}

void TensorPlan::buffer(const std::string& name, const Shape& shape, at::Tensor& holder, Fill fill) {
  buffers_.push_back({name, shape, &holder, std::move(fill)});
}

FlatTensors TensorPlan::lay_out(const std::vector<Entry>& entries, std::uint64_t seed, const at::TensorOptions& tensors,
                                bool trainable) {
  FlatTensors::Shapes shapes;
  for (const Entry& entry : entries) shapes.emplace_back(entry.name, entry.shape);
  FlatTensors made(shapes, tensors, trainable);
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const auto& [name, tensor] = made.named()[i];
    Rng rng(mix_text(seed, name), random_stream(StreamKind::weights, kHeadStreams));
    entries[i].fill(tensor, rng);
    *entries[i].holder = tensor;
  }
  return made;
}

TensorPlan::Made TensorPlan::make(std::uint64_t seed, const at::TensorOptions& tensors) const {
  const at::TensorOptions kind = tensors.has_dtype() ? tensors : tensors.dtype(c10::kFloat);
  return {lay_out(parameters_, seed, kind, true), lay_out(buffers_, seed, kind, false)};
}

void LinearLayer::declare(TensorPlan& plan, const std::string& name, std::int64_t in, std::int64_t out, Start start) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(in));
  Fill weights = fill_uniform(bound);
  if (start == Start::normal) weights = fill_normal(0.02);
  if (start == Start::xavier) weights = fill_uniform(std::sqrt(6.0 / static_cast<double>(in + out)));
  plan.parameter(name + ".weight", {out, in}, weight, weights);
  plan.parameter(name + ".bias", {out}, bias, start == Start::torch ? fill_uniform(bound) : fill_zeros());
}

at::Tensor LinearLayer::forward(const at::Tensor& x) const { return at::linear(x, weight, bias); }

}  // namespace fusion
