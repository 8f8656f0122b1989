#pragma once

#include <chrono>
#include <optional>

#include "base/clock.h"
#include "space/retraining.h"

namespace fusion {

/// How long the epochs of the retraining at work take, and how much of the one at hand is left: from what the trainer reports.
///
/// Of a phase that has just begun nothing is known until a tenth of its first epoch is done. Values only; one thread.
class EpochClock {
 public:
  using Seconds = std::chrono::duration<double>;
  EpochClock(const RetrainingOptions& options, SteadyTime now)
      : fusion_epochs_(options.fusion_epochs), epochs_(options.total_epochs()), begun_(now) {}

  void note(const RetrainingProgress& progress);
  /// An epoch is done, and its checkpoint on disk. An attempt that goes on tells that of its checkpoint first.
  void note(const RetrainingEpoch& epoch, SteadyTime now);

  /// There is one behind the one at hand.
  bool another() const { return done_ + 1 < epochs_; }
  /// What an epoch takes that is like the one at hand.
  std::optional<Seconds> epoch() const;
  /// What is left of the one at hand; none where `epoch` is none.
  std::optional<Seconds> rest(SteadyTime now) const;

 private:
  int fusion_epochs_, epochs_;
  SteadyTime begun_;               // the epoch at hand
  int done_ = 0;                   // the last epoch that was told
  std::optional<Seconds> last_;    // of this phase
  std::optional<Seconds> at_pace_; // the pass over the train split at the pace of the epoch at hand
};

}  // namespace fusion
