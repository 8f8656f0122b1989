#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

namespace fusion {

/// The Philox4x32-10 block function (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
/// 128 bits of counter and 64 bits of key to 128 random bits. Stateless; the same on every platform and thread.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// A stable 64-bit hash of words and of text (SplitMix64 finaliser chain), to derive seeds: `mix(study_seed, trial)`.
std::uint64_t mix(std::uint64_t a, std::uint64_t b);
std::uint64_t mix_text(std::uint64_t seed, std::string_view text);

/// A counter-based generator: the sequence depends on (seed, stream) only, never on what other streams drew.
///
/// Every draw is defined by this file alone (no std:: distribution), so studies replay on any machine. Copyable; a copy
/// continues from the same place. Not thread-safe.
class Rng {
 public:
  explicit Rng(std::uint64_t seed, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  std::uint32_t next_u32();
  std::uint64_t next_u64();
  /// Uniform in [0, 1), 53 bits.
  double uniform();
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// What that many calls of `uniform()` would give, several times as fast.
  void uniforms(std::span<double> out);
  /// Uniform in [0, n), without bias (Lemire's multiply-shift with rejection). n must be positive.
  std::uint64_t below(std::uint64_t n);
  /// Standard normal, Box-Muller (one of the pair is dropped, so a draw never depends on the parity of earlier ones).
  double normal();

  /// Fisher-Yates.
  template <typename T>
  void shuffle(std::span<T> values) {
    for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
  std::uint64_t block_ = 0;
  std::array<std::uint32_t, 4> words_{};
  int used_ = 4;
};

}  // namespace fusion
