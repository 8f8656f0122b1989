#pragma once

#include <ATen/core/Tensor.h>

#include "base/random.h"

namespace fusion {

/// Fill a tensor in row-major order from the generator. The draws are doubles rounded to the tensor's type, so that a seed means the
/// same weights on every machine, device and (up to rounding) type.
void fill_uniform(const at::Tensor& tensor, double bound, Rng& rng);  ///< in [-bound, bound)
void fill_normal(const at::Tensor& tensor, double deviation, Rng& rng);

/// Numbers that one output of a linear or convolution weight reads: the product of all sizes but the first.
std::int64_t fan_in_of(const at::Tensor& weight);

/// PyTorch's default for linear layers: weight and bias uniform in +-1 / sqrt(fan in).
void initialise_linear(const at::Tensor& weight, const at::Tensor& bias, Rng& rng);

/// Kaiming uniform (fan in, gain sqrt 2): +-sqrt(6 / fan in).
void initialise_kaiming(const at::Tensor& weight, Rng& rng);

}  // namespace fusion
