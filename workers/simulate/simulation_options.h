#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "space/trial.h"

namespace fusion {

/// How simulated training behaves, apart from the scores.
struct SimulationOptions {
  std::uint64_t seed = 0;  ///< of durations and of what goes wrong; scores do not depend on it
  double epoch_s = 0;      ///< seconds an epoch takes; 0: a trial takes no time at all
  double spread = 0.25;    ///< an epoch takes epoch_s x (1 - spread) to epoch_s x (1 + spread); in [0, 1]
  double failures = 0;     ///< share of attempts that end failed, each at some moment of its training
  double oom = 0;          ///< share of attempts that end out of memory
  double preemptions = 0;  ///< share of attempts that end preempted
  double crashes = 0;      ///< share of attempts amid which the worker dies without a word

  /// `prefix`: of the command line's options, for sentences. Throws ConfigError with every problem: a figure out of its range, or shares that leave less than one attempt in twenty to be completed.
  void check(const std::string& prefix = "--simulate-") const;
};

/// What becomes of one attempt, decided before it begins.
struct SimulatedFate {
  std::vector<double> epoch_s;             ///< how long each epoch takes
  Outcome outcome = Outcome::completed;    ///< completed, failed, oom, preempted, or lost: the worker dies
  int epochs = 0;                          ///< whole epochs before it ends
  double rest_s = 0;                       ///< seconds of the epoch amid which it ends; 0 if completed
};

/// A function of its arguments. Durations depend on the seeds of simulation and trial; what goes wrong on the attempt too, so that a
/// retry may do better.
SimulatedFate fate_of(const SimulationOptions& options, const TrialJob& job, int epochs);

}  // namespace fusion
