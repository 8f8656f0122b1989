#pragma once

#include <cstdint>
#include <limits>

#include "model/flat_tensors.h"

namespace fusion {

struct PlateauOptions {
  double factor = 0.1;        ///< what the rate is multiplied with on a plateau; in (0, 1)
  std::int64_t patience = 5;  ///< epochs without improvement that are borne; the next one reduces
  double threshold = 1e-4;    ///< a loss improves if it is below (1 - threshold) * the best one
  double min_rate = 0;        ///< the rate never falls below
};

/// Reduces the learning rate when a loss stops falling, with the rules of torch.optim.lr_scheduler.ReduceLROnPlateau (mode min, relative
/// threshold, no cooldown; a reduction by less than 1e-8 is not made). A loss that is not finite never improves.
class PlateauSchedule {
 public:
  /// Throws ModelError if an option is out of range.
  explicit PlateauSchedule(double rate, const PlateauOptions& options = {});

  /// Takes an epoch's validation loss and returns the rate for the next epoch.
  double step(double loss);
  double rate() const { return rate_; }

  /// For a checkpoint: "plateau" [3]: rate, best loss, epochs without improvement.
  NamedTensors state() const;
  /// Throws ModelError, and changes nothing, if it is missing or of another shape.
  void load_state(const NamedTensors& state);

 private:
  PlateauOptions options_;
  double rate_;
  double best_ = std::numeric_limits<double>::infinity();
  std::int64_t bad_epochs_ = 0;
};

}  // namespace fusion
