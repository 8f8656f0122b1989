#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace fusion {

/// The toy set: a digit drawn and sounded, and a bit that only both together tell (docs/toy.md). Made in seconds, from a seed alone.
struct ToyOptions {
  std::int64_t train = 16000, dev = 2000, test = 2000;  ///< rows
  std::uint64_t seed = 0;
};

/// Writes image, audio, labels and dataset.json into `out`; returns the dataset's digest. The same options give the same bytes. Row i
/// of a split depends on (seed, split, i) alone. `observer` is told rows done. Throws DataError or ConfigError (no rows).
std::string make_toy(const std::filesystem::path& out, const ToyOptions& options,
                     const std::function<void(std::int64_t done)>& observer = {});

}  // namespace fusion
