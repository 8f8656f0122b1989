#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/torch_compat.h"

namespace fusion::golden {

/// A hash of (i, k) to [-1, 1): the rule by which golden cases fill tensors that are too large to store.
inline double fill_unit(std::uint64_t i, std::uint64_t k) {
  std::uint32_t x = static_cast<std::uint32_t>(i + 1) * 0x9E3779B1U + static_cast<std::uint32_t>(k) * 0x85EBCA77U;
  x ^= x >> 15;
  x *= 0x2C1B3C6DU;
  x ^= x >> 12;
  x *= 0x297A2D39U;
  x ^= x >> 15;
  return static_cast<double>(x >> 8) / 8388608.0 - 1;
}

/// Element i in row-major order becomes offset + scale * fill_unit(i, k), rounded once.
inline void fill(const at::Tensor& tensor, std::uint64_t k, double scale, double offset) {
  const at::NoGradGuard no_grad;
  const at::Tensor filled = at::empty(tensor.sizes(), at::TensorOptions().dtype(at::kFloat));
  float* const out = filled.data_ptr<float>();
  for (std::int64_t i = 0; i < filled.numel(); ++i) {
    out[i] = static_cast<float>(offset + scale * fill_unit(static_cast<std::uint64_t>(i), k));
  }
  tensor.copy_(filled);
}

/// As an entry of a sidecar's `fill` or `inputs` says.
inline void fill(const at::Tensor& tensor, const nlohmann::json& entry) {
  fill(tensor, entry.at("k").get<std::uint64_t>(), entry.at("scale").get<double>(), entry.at("offset").get<double>());
}
inline at::Tensor filled(const nlohmann::json& entry) {
  const at::Tensor tensor = at::empty(entry.at("shape").get<std::vector<std::int64_t>>(), at::TensorOptions().dtype(at::kFloat));
  fill(tensor, entry);
  return tensor;
}

}  // namespace fusion::golden
