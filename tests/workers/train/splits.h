#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "base/random.h"
#include "workers/data/features.h"

namespace fusion::test {

inline const std::vector<std::vector<std::int64_t>> kWidths{{3, 5}, {4, 2}};

/// Random features in which each tap tells something of the label, and logits that tell more.
inline FeatureSplit make_split(std::int64_t rows, std::uint64_t seed, std::int64_t classes = 3, bool with_logits = true) {
  Rng rng(seed);
  FeatureSplit split;
  split.rows = rows;
  split.labels = at::empty({rows}, at::kLong);
  auto* const labels = split.labels.data_ptr<std::int64_t>();
  for (std::int64_t r = 0; r < rows; ++r) labels[r] = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(classes)));
  const auto make = [&](std::int64_t width, double signal) {
    at::Tensor tensor = at::empty({rows, width}, at::kFloat);
    float* const values = tensor.data_ptr<float>();
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < width; ++c) {
        values[r * width + c] = static_cast<float>(rng.normal() + signal * std::cos(static_cast<double>(labels[r] * (c + 1))));
      }
    }
    return tensor;
  };
  for (const auto& of_modality : kWidths) {
    auto& taps = split.taps.emplace_back();
    for (const std::int64_t width : of_modality) taps.push_back(make(width, 1.0));
    split.logits.push_back(with_logits ? make(classes, 0.5) : at::Tensor());
  }
  return split;
}

}  // namespace fusion::test
