#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tools/bench/shape.h"

namespace fusion::bench {

/// What an engine of the product does with a list of candidates, through `train_pack` as a worker calls it.
struct EngineRun {
  std::string engine = "plain";
  std::string device = "cpu";
  std::size_t pack = 4;  ///< candidates per call; a worker's default on a CPU
  std::uint64_t order_seed = 1;

  /// One epoch of every architecture on the split, scored on `dev`. Mean training loss of each, in order. Throws Error where a trial
  /// did not complete.
  std::vector<double> epoch(std::span<const Architecture> architectures, const TrainingOptions& options, std::int64_t classes,
                            const FeatureSplit& train, const FeatureSplit& dev) const;
};

/// Initial weights of the n-th architecture.
inline std::uint64_t seed_of(std::size_t architecture) { return 1000 + architecture; }

}  // namespace fusion::bench
