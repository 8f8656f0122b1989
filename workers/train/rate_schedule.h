#pragma once

#include <memory>
#include <optional>

#include "space/retraining_options.h"
#include "workers/train/schedule.h"

namespace fusion {

/// The learning rate falls by `factor` when the watched loss has not fallen below its lowest so far (by a relative 1e-4, PyTorch's
/// ReduceLROnPlateau) for more than `patience` epochs; then counting begins again. Never below `eta_min`.
class PlateauSchedule {
 public:
  PlateauSchedule(double eta_max, double eta_min, double factor, int patience);
  double rate() const { return rate_; }
  void end_epoch(double loss);

 private:
  double rate_, eta_min_, factor_;
  int patience_, bad_ = 0;
  double lowest_;
};

/// The schedule that a retraining's options name, for one phase. It has no state of its own to save: it follows from the steps done and the
/// dev losses of the phase's epochs.
class RetrainSchedule {
 public:
  /// `steps_per_epoch`: rows / rows per step, a real number.
  RetrainSchedule(const RetrainingOptions& options, double steps_per_epoch);

  double next();                    ///< the rate of the next step
  void end_epoch(double dev_loss);  ///< after its last step

 private:
  std::optional<CosineSchedule> cosine_;
  PlateauSchedule plateau_;
};

}  // namespace fusion
