#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>

#include "space/training_options.h"
#include "space/trial.h"
#include "workers/train/training_data.h"
#include "workers/train/weight_bank.h"

namespace fusion {

struct TrainingContext {
  std::string device = "cpu";  ///< "cpu", "cuda", "cuda:<n>"
  std::uint64_t order_seed = 0;  ///< of the rows' order (workers/train/epoch_order.h)
  std::stop_token cancel;      ///< looked at before every batch: outcome cancelled
  std::stop_token prune;       ///< likewise: outcome pruned, with the score of the epochs that were finished
  std::function<void(const EpochReport&)> on_epoch;  ///< called after every epoch, in the calling thread; must not throw
  WeightBank* bank = nullptr;  ///< of the study; used with TrainingOptions::weight_sharing only
};

/// Trains one candidate with LibTorch's autograd and scores it: the engine called "autograd", the oracle that the faster ones are held
/// to, and the fallback for what they do not know.
///
/// Per batch: forward, loss, learning rate of the schedule, backward, Adam with coupled weight decay. The loss is the cross entropy
/// of the fusion logits; with `multitask` those of the backbones' stored logits are added (constants: they show in train_loss only) and
/// the prediction is the argmax of the sum of all logits. After every epoch dev is scored; the weights of the best epoch (strictly
/// greater, starting from 0) are put back at the end, and if none beat 0, the initial ones. `train_loss` is the mean over the rows of
/// the last epoch.
///
/// Initial weights and dropout come from the job's seed, the row order from the context's, and nothing else, so on one machine a job
/// gives the same bits in any order; only with weight sharing does it depend on what was trained before.
///
/// What may happen to a trial is an outcome, not an exception: cancelled, pruned, oom (memory ran out), failed (a loss that is not
/// finite, features that do not fit, any error of LibTorch). Throws ModelError for a device that is not there. With batch
/// normalisation a last batch of a single row is left out, as it has no variance.
TrialOutcome train_trial(const TrialJob& job, const TrainingOptions& options, const TrainingData& data,
                         const TrainingContext& context = {});

}  // namespace fusion
