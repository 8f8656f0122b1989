#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "space/architecture.h"
#include "space/search_space.h"

namespace fusion {

/// Architectures as numbers for surrogates. Both depend only on the space.
class Encoding {
 public:
  explicit Encoding(const SearchSpace& space);

  /// Numbers per step of the sequence form: one per modality, the activation; one more for the operation where the space has
  /// several. For MFAS on two modalities 3: the raw triplet, unscaled, as the reference feeds it.
  std::size_t width() const { return width_; }
  /// [steps, width] row-major.
  std::vector<float> sequence(const Architecture& architecture) const;
  /// The inverse of `sequence`. Throws SpaceError for a length that is no multiple of width, or numbers that mean nothing.
  Architecture from_sequence(std::span<const float> numbers) const;

  /// Width of the one-hot form: max_steps x (1 + taps of each modality + operations + activations).
  std::size_t one_hot_width() const { return one_hot_width_; }
  /// For each step that exists: a 1 for "exists", and one-hot taps, operation and activation; zeros for missing steps.
  std::vector<double> one_hot(const Architecture& architecture) const;

 private:
  std::size_t modalities_ = 0;
  std::size_t width_ = 0;
  std::size_t step_width_ = 0;
  std::size_t one_hot_width_ = 0;
  bool with_operation_ = false;
  int max_steps_ = 0;
  std::vector<std::int32_t> tap_limit_;  ///< per modality: largest allowed tap index + 1
};

}  // namespace fusion
