#include "workers/train/schedule.h"

#include <cmath>
#include <numbers>

namespace fusion {

CosineSchedule::CosineSchedule(const Options& options, double batches_per_epoch)
    : options_(options), batches_per_epoch_(batches_per_epoch), period_(options.restart_epochs) {
  if (options.rule == RestartRule::repaired) batches_per_epoch_ = std::ceil(batches_per_epoch);
}

CosineSchedule::CosineSchedule(const TrainingOptions& options, std::int64_t rows)
    : CosineSchedule(Options{options.eta_max, options.eta_min, options.restart_epochs, options.restart_factor,
                             options.restart_rule},
                     static_cast<double>(rows) / options.batch) {}

double CosineSchedule::next() {
  const double t = static_cast<double>(counter_) / batches_per_epoch_;
  ++counter_;
  const double half = (options_.eta_max - options_.eta_min) / 2;
  const double rate = options_.eta_min + half * (1 + std::cos(std::numbers::pi * t / period_));
  restarted_ = options_.rule == RestartRule::reference ? rate <= options_.eta_min + 1e-10
                                                       : static_cast<double>(counter_) >= batches_per_epoch_ * period_;
  if (restarted_) {
    counter_ = 0;
    period_ *= options_.restart_factor;
  }
  return rate;
}

}  // namespace fusion
