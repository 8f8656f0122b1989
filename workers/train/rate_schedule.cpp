#include "workers/train/rate_schedule.h"

namespace fusion {

RateSchedules::RateSchedules(const RetrainingOptions& o, double steps_per_epoch) {
  if (o.schedule == RateSchedule::cosine) {
    cosine_.emplace(CosineSchedule::Options{o.eta_max, o.eta_min, o.restart_epochs, o.restart_factor, o.restart_rule}, steps_per_epoch);
  } else {
    plateau_.emplace(o.eta_max, PlateauOptions{.factor = o.plateau_factor, .patience = o.plateau_patience, .min_rate = o.eta_min});
  }
}

double RateSchedules::next() { return cosine_ ? cosine_->next() : plateau_->rate(); }

void RateSchedules::end_epoch(double dev_loss) {
  if (plateau_) plateau_->step(dev_loss);
}

}  // namespace fusion
