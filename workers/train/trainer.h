#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "space/training_options.h"
#include "space/trial.h"
#include "workers/train/training_data.h"
#include "workers/train/weight_bank.h"

namespace fusion {

/// One trial of a pack: what to train, and how to end it early.
struct PackTrial {
  TrialJob job;
  std::stop_token cancel;  ///< outcome cancelled
  std::stop_token prune;   ///< outcome pruned, with the score of the epochs that were finished (failed if there were none)
};

struct PackContext {
  std::string device = "cpu";    ///< "cpu", "cuda", "cuda:<n>"
  std::string engine = "auto";   ///< "plain", "stacked", "autograd", or "auto": plain on a CPU, stacked on a GPU
  std::uint64_t order_seed = 0;  ///< of the rows' order: one for all trials of a study (workers/train/epoch_order.h)
  std::size_t room = 0;          ///< trials to train at once, where `more` has them; 0: as many as there are at first
  std::int64_t memory_bytes = 0; ///< of a GPU's memory that features and trials may take; 0: what is free
  WeightBank* bank = nullptr;    ///< of the study; used with TrainingOptions::weight_sharing only
  /// Called after every epoch of every trial. May be empty.
  std::function<void(const TrialJob&, const EpochReport&)> on_epoch;
  /// Called once for every trial, when it has ended. Must be there.
  std::function<void(TrialOutcome)> on_end;
  /// Asked between epochs, when there is room: at most so many more trials. May be empty, and may return none.
  std::function<std::vector<PackTrial>(std::size_t room)> more;
};

/// Trains the trials of a pack together and scores each: per trial what `train_trial` (workers/train/autograd_trainer.h) promises, by
/// the engine that is named in its outcome.
///
/// All trials share options, data and row order; each has its own seed for initial weights and dropout. On one machine and with one
/// engine a trial's figures are the same bits alone, in any pack and in any order (with weight sharing the trials are trained one after
/// the other and do depend on what went before). A trial that fails, is cancelled or is pruned leaves the others unharmed. The callbacks
/// run in the calling thread and must not throw. Throws ModelError for a device or an engine that is not there.
void train_pack(std::vector<PackTrial> trials, const TrainingOptions& options, const TrainingData& data, const PackContext& context);

/// Throws ModelError with a sentence unless trials can be trained on `device`. Returns the bytes of a GPU's memory that are free.
std::optional<std::int64_t> check_training_device(const std::string& device);

}  // namespace fusion
