#pragma once

#include <cstdint>

#include "space/training_options.h"

namespace fusion {

/// The reference's learning rate: a cosine from eta_max to eta_min with warm restarts, one step per batch (Loshchilov and Hutter,
/// "SGDR", ICLR 2017). nb = rows / batch, as a real number; Ti, Tm as in TrainingOptions.
///
///     lr = eta_min + (eta_max - eta_min) / 2 * (1 + cos(pi * t / Ti)),   t = batches since the restart / nb
///
/// RestartRule::reference restarts, with Ti <- Ti * Tm, after a step whose lr is at most eta_min + 1e-10: one step is spent at the
/// minimum, and for a non-integer nb no step may come near enough; then the restart is missed and the rate climbs back up.
/// RestartRule::repaired counts: t = batches / ceil(nb), and a restart after exactly ceil(nb) * Ti batches.
class CosineSchedule {
 public:
  struct Options {
    double eta_max = 1e-3, eta_min = 1e-6;
    int restart_epochs = 1;  ///< Ti
    int restart_factor = 2;  ///< Tm
    RestartRule rule = RestartRule::repaired;
  };

  /// `batches_per_epoch` is nb, above 0.
  CosineSchedule(const Options& options, double batches_per_epoch);
  CosineSchedule(const TrainingOptions& options, std::int64_t rows);

  /// The rate of the next batch; the first call gives eta_max.
  double next();
  /// Whether the next batch begins a new cycle because of the last call to `next`.
  bool restarted() const { return restarted_; }

 private:
  Options options_;
  double batches_per_epoch_;
  double period_;  ///< Ti, in epochs
  std::int64_t counter_ = 0;
  bool restarted_ = false;
};

}  // namespace fusion
