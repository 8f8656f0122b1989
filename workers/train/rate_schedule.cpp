#include "workers/train/rate_schedule.h"

#include <algorithm>
#include <limits>

namespace fusion {

PlateauSchedule::PlateauSchedule(double eta_max, double eta_min, double factor, int patience)
    : rate_(eta_max), eta_min_(eta_min), factor_(factor), patience_(patience), lowest_(std::numeric_limits<double>::infinity()) {}

void PlateauSchedule::end_epoch(double loss) {
  constexpr double kThreshold = 1e-4;
  if (loss < lowest_ * (1 - kThreshold)) {
    lowest_ = loss;
    bad_ = 0;
    return;
  }
  if (++bad_ <= patience_) return;
  rate_ = std::max(eta_min_, rate_ * factor_);
  bad_ = 0;
}

RetrainSchedule::RetrainSchedule(const RetrainingOptions& o, double steps_per_epoch)
    : plateau_(o.eta_max, o.eta_min, o.plateau_factor, o.plateau_patience) {
  if (o.schedule == RateSchedule::cosine) {
    cosine_.emplace(CosineSchedule::Options{o.eta_max, o.eta_min, o.restart_epochs, o.restart_factor, o.restart_rule}, steps_per_epoch);
  }
}

double RetrainSchedule::next() { return cosine_ ? cosine_->next() : plateau_.rate(); }

void RetrainSchedule::end_epoch(double dev_loss) {
  if (!cosine_) plateau_.end_epoch(dev_loss);
}

}  // namespace fusion
