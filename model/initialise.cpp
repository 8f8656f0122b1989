#include "model/initialise.h"

#include <ATen/ops/empty.h>

#include <cmath>
#include <span>

#include "model/torch_compat.h"

namespace fusion {
namespace {

/// `draw` fills a span of doubles.
template <typename Draw>
void fill(const at::Tensor& tensor, Draw draw) {
  const at::NoGradGuard no_grad;
  const at::Tensor drawn = at::empty(tensor.sizes(), at::TensorOptions().dtype(c10::kDouble));
  draw(std::span(drawn.data_ptr<double>(), static_cast<std::size_t>(drawn.numel())));
  tensor.copy_(drawn);
}

}  // namespace

void fill_uniform(const at::Tensor& tensor, double bound, Rng& rng) {
  fill(tensor, [&](std::span<double> values) {
    rng.uniforms(values);
    for (double& value : values) value = -bound + (bound - -bound) * value;  // as Rng::uniform(low, high) does
  });
}

void fill_normal(const at::Tensor& tensor, double deviation, Rng& rng) {
  fill(tensor, [&](std::span<double> values) {
    for (double& value : values) value = deviation * rng.normal();
  });
}

std::int64_t fan_in_of(const at::Tensor& weight) { return weight.numel() / weight.size(0); }

void initialise_linear(const at::Tensor& weight, const at::Tensor& bias, Rng& rng) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(fan_in_of(weight)));
  fill_uniform(weight, bound, rng);
  fill_uniform(bias, bound, rng);
}

void initialise_kaiming(const at::Tensor& weight, Rng& rng) {
  fill_uniform(weight, std::sqrt(6.0 / static_cast<double>(fan_in_of(weight))), rng);
}

}  // namespace fusion
