#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "space/retraining.h"

namespace fusion {

struct RankTeamOptions {
  std::filesystem::path program;     ///< fusion-rank
  std::vector<std::string> devices;  ///< one per rank: "cpu", or "cuda:<n>", each another
  std::chrono::seconds timeout{300}; ///< the longest that a rank may let the others wait
  std::stop_token cancel;            ///< ends all ranks at once: outcome cancelled
  std::stop_token hand_back;         ///< they end behind the epoch at hand: outcome preempted
  std::function<void(const RetrainingEpoch&)> on_epoch;  ///< as in RetrainContext
  std::function<void(const RetrainingProgress&)> on_progress;
};

/// Retrains a job in so many processes as there are devices (workers/train/retrain.h, `RetrainContext::group`), and waits for all of them. Needs no
/// LibTorch itself.
///
/// The ranks are children of this process, told over a socket what to do; they end when it does. If one of them ends before its time, or is silent for
/// longer than the timeout, the others are ended: the outcome is preempted if an epoch was done since the begin, so that going on makes way, else failed,
/// with a sentence that names the rank. What one rank says is wrong (a disk that is full, a loss that is not finite) is the outcome of all. Where memory
/// runs out all ranks begin again, behind the last checkpoint, with half as many rows at once.
/// Throws std::system_error if a rank cannot be started.
RetrainingOutcome retrain_with_ranks(const RetrainingJob& job, const RankTeamOptions& options);

}  // namespace fusion
