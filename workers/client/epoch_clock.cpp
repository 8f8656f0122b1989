#include "workers/client/epoch_clock.h"

#include <algorithm>

namespace fusion {

// The first batches may be much slower than the rest.
void EpochClock::note(const RetrainingProgress& progress) {
  if (progress.rows_per_s > 0 && progress.rows * 10 >= progress.of_rows) {
    at_pace_ = Seconds(static_cast<double>(progress.of_rows) / progress.rows_per_s);
  }
}

// From report to report, so that evaluation and checkpoint count too. Before the first one there was setting up.
void EpochClock::note(const RetrainingEpoch& epoch, SteadyTime now) {
  const Seconds took = done_ > 0 ? Seconds(now - begun_) : Seconds(epoch.seconds);
  done_ = epoch.epoch;
  begun_ = now;
  at_pace_.reset();
  last_.reset();
  if (epoch.phase == (epoch.epoch < fusion_epochs_ ? 1 : 2)) last_ = took;
}

std::optional<EpochClock::Seconds> EpochClock::epoch() const {
  if (!last_ || !at_pace_) return last_ ? last_ : at_pace_;
  return std::max(*last_, *at_pace_);
}

std::optional<EpochClock::Seconds> EpochClock::rest(SteadyTime now) const {
  const auto whole = epoch();
  if (!whole) return std::nullopt;
  return std::max(Seconds(0), *whole - Seconds(now - begun_));
}

}  // namespace fusion
