#include "model/initialise.h"

#include <ATen/ops/empty.h>

#include <cmath>

#include "model/torch_compat.h"

namespace fusion {
namespace {

template <typename Draw>
void fill(const at::Tensor& tensor, Draw draw) {
  const at::NoGradGuard no_grad;
  const at::Tensor drawn = at::empty(tensor.sizes(), at::TensorOptions().dtype(c10::kDouble));
  double* const values = drawn.data_ptr<double>();
  for (std::int64_t i = 0; i < drawn.numel(); ++i) values[i] = draw();
  tensor.copy_(drawn);
}

}  // namespace

void fill_uniform(const at::Tensor& tensor, double bound, Rng& rng) {
  fill(tensor, [&] { return rng.uniform(-bound, bound); });
}

void fill_normal(const at::Tensor& tensor, double deviation, Rng& rng) {
  fill(tensor, [&] { return deviation * rng.normal(); });
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
