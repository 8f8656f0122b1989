#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "space/architecture.h"

namespace fusion {

/// One architecture and the score it got, in [0, 1], higher is better.
struct Observation {
  Architecture architecture;
  double score = 0;
};

/// What a fit gave, for people (table surrogate_fits).
struct FitReport {
  std::int64_t observations = 0;          ///< distinct architectures in the fit
  int epochs = 0;
  double loss = 0;                        ///< mean squared error over all observations after the fit
  std::vector<double> loss_by_length;     ///< last epoch's loss per sequence length, before that length's last update
  std::vector<int> lengths;               ///< the lengths the entries above belong to, in the order of training
  double seconds = 0;
};

/// Predicts scores of architectures from the scores of others.
///
/// Deterministic in options, seed and the sequence of fits so far, to the last bit on every x86-64 machine, so that a replay
/// of a study ends in the same state. One thread at a time.
class Surrogate {
 public:
  virtual ~Surrogate() = default;
  /// Fits to all observations so far. May continue from the last fit (the MFAS surrogate keeps weights and Adam state).
  virtual FitReport fit(std::span<const Observation> observations) = 0;
  /// A score for each candidate, in their order; float32 arithmetic widened where the method is float32.
  virtual std::vector<double> predict(std::span<const Architecture> candidates) const = 0;
  virtual std::string_view name() const = 0;
};

}  // namespace fusion
