#pragma once

#include <cstring>
#include <span>
#include <vector>

#include "base/random.h"
#include "surrogate/lstm_network.h"

namespace fusion::testing {

/// `count` random sequences of small whole numbers, as taps and activations are.
inline std::vector<float> random_values(Rng& rng, std::size_t count, std::size_t length, std::size_t width) {
  std::vector<float> values(count * length * width);
  for (float& value : values) value = static_cast<float>(rng.below(5));
  return values;
}

inline std::vector<float> random_targets(Rng& rng, std::size_t count) {
  std::vector<float> targets(count);
  for (float& target : targets) target = static_cast<float>(rng.uniform(0.3, 0.95));
  return targets;
}

/// A hash of the bits of every number, in order.
inline std::uint64_t bits_of(std::span<const float> values) {
  std::uint64_t hash = 0;
  for (const float value : values) {
    std::uint32_t word = 0;
    std::memcpy(&word, &value, sizeof(word));
    hash = mix(hash, word);
  }
  return hash;
}

}  // namespace fusion::testing
