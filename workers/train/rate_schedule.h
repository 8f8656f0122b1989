#pragma once

#include <optional>

#include "model/plateau_schedule.h"
#include "space/retraining_options.h"
#include "workers/train/schedule.h"

namespace fusion {

/// The learning rate as a retraining's options name it, for one phase. Nothing of it has to be saved: it follows from the steps done and the dev
/// losses of the phase's epochs.
class RateSchedules {
 public:
  /// `steps_per_epoch`: rows / rows per step, a real number.
  RateSchedules(const RetrainingOptions& options, double steps_per_epoch);

  double next();                    ///< the rate of the next step
  void end_epoch(double dev_loss);  ///< after its last step

 private:
  std::optional<CosineSchedule> cosine_;
  std::optional<PlateauSchedule> plateau_;
};

}  // namespace fusion
