#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace fusion {

/// A retraining that waits.
struct OpenRetraining {
  int processes = 1;
  std::optional<double> epoch_cpu_s{}, epoch_gpu_s{};  ///< what its next epoch takes there; none: nobody knows
};

/// What is to be done, for all pools.
struct OpenWork {
  std::size_t trials = 0;  ///< that nobody trains now: queued, or held by a worker that trains others first
  std::vector<OpenRetraining> retrainings{};
};

/// One pool as it stands, for sharing the work out.
struct PoolState {
  int min = 0, max = 0;
  int trials_per_worker = 1;
  int busy = 0;        ///< workers that train
  bool stuck = false;  ///< its launcher can bring nothing into being now
  std::optional<int> processes{};  ///< most that a retraining may have on one of its workers; 0: they do not retrain; none: any number
  bool gpu = false;                ///< its workers train on one
  std::optional<double> longest_epoch_s{};  ///< of a retraining that a new worker has time for; none: any
  std::optional<double> first_epoch_s{};    ///< what one counts as of which nobody knows what it takes; none: nothing
};

/// How many workers each pool ought to have: those that are busy, one for each `trials_per_worker` trials that wait, and one for each retraining that
/// waits and that its workers can do, in [min, max]. The pools' order is their order of preference: what one cannot take is left to the next. One
/// that is stuck keeps what it wants, and leaves all of it to the next too. A pure function.
std::vector<int> wanted_sizes(const OpenWork& work, const std::vector<PoolState>& pools);

/// Where retrainings wait that the workers of no pool can do: what the first of them wants and this pool's workers have, a sentence. Else empty.
std::string what_it_lacks(const PoolState& pool, const OpenWork& work, const std::vector<PoolState>& pools);

/// Turns what is wanted into steps that never flap: up at once, down only by what was too much during the whole of a time, for getting a GPU
/// back may take hours.
class PoolSizer {
 public:
  explicit PoolSizer(std::chrono::milliseconds shrink_after) : shrink_after_(shrink_after) {}
  /// How many to add (positive) or to let go (negative), `have` being those that count.
  int step(SteadyTime now, int want, int have);

 private:
  std::chrono::milliseconds shrink_after_;
  std::optional<SteadyTime> too_many_since_;
  int most_wanted_ = 0;  // since then
};

}  // namespace fusion
