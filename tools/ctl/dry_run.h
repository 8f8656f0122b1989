#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "space/architecture.h"
#include "store/store.h"
#include "workers/simulate/objective.h"
#include "workers/simulate/simulation_options.h"

namespace fusion::ctl {

struct DryRunOptions {
  int workers = 8;               ///< trials in training at once
  SimulationOptions simulation;  ///< durations, and what goes wrong
};

/// What one search found.
struct DryRun {
  std::uint64_t seed = 0;
  std::int64_t trials = 0, completed = 0, pruned = 0, failed = 0;  ///< proposals, and how they ended; pruned ones are of the completed
  std::int64_t attempts = 0;
  std::int64_t unknown = 0;   ///< of the failed: the objective does not know the architecture
  double seconds = 0;         ///< of the simulated clock, from the first trial's begin to the last one's end
  std::optional<Architecture> best;  ///< the best dev score, the first of equal ones; none that was pruned
  double best_score = 0, best_truth = 0;  ///< its dev score, and what it is worth without noise
  std::optional<double> best_test;
  /// The truth of the best so far, after each trial that ended; before the first score it is 0.
  std::vector<double> best_truth_after;
};

/// Runs a study to its end against an objective, in this process and on a clock of its own: the strategy, the order of ends, retries and
/// early stopping are those of the daemon, but nothing is stored, sent or waited for. A function of its arguments: the same again each time.
///
/// `study.spec.space` and `.strategy` must have been found good. Any thread.
DryRun dry_run(const StudyRecord& study, const SimulatedObjective& objective, const DryRunOptions& options);

}  // namespace fusion::ctl
