#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <stop_token>
#include <string>

#include "space/retraining.h"

namespace fusion {

class RankGroup;
class RetrainedModel;

/// What a retraining is given besides its job. Callbacks run in the calling thread and must not throw.
struct RetrainContext {
  std::string device = "cpu";  ///< "cpu", "cuda", "cuda:<n>"
  std::stop_token cancel;      ///< looked at before every batch: outcome cancelled
  std::stop_token hand_back;   ///< looked at between epochs, the last one's checkpoint being on disk: outcome preempted
  /// After every epoch, once its checkpoint is on disk. An attempt that goes on tells the checkpoint's last epoch again, first: the report
  /// may have been lost with the process.
  std::function<void(const RetrainingEpoch&)> on_epoch;
  std::function<void(const RetrainingProgress&)> on_progress;  ///< some times a second
  /// Writes a model in another format into the folder, under the name `export_name`; listed with the artifacts. Not called for a model
  /// without backbones (imported features). May be empty; workers/train/export_model.h has one.
  std::function<void(const RetrainedModel&, const nlohmann::json& metadata, const std::filesystem::path& file)> export_model;
  std::string export_name = "model.pt";
  /// With other processes that retrain the same job, each with its own rank; outlives the call. nullptr: alone.
  const RankGroup* group = nullptr;
  std::int64_t rows_at_once = 0;  ///< no more than that, over all ranks, whatever the batch is; 0: as the batch
};

/// Retrains a found configuration (docs/retraining.md): phase 1 trains the fusion part on frozen backbones, phase 2 goes on from its best
/// weights with all weights (finetune all) or the same ones (none), each with an optimiser and a schedule of its own. Weights come from the
/// train split, the epoch that counts from dev, test is looked at once, at the end.
///
/// After every epoch a checkpoint is written into the job's folder (workers/train/checkpoint.h); an attempt goes on behind the newest one
/// that is whole. On one machine's CPU the final weights are the same bytes however often it was interrupted. At the end model.safetensors
/// and architecture.json lie in the folder.
///
/// With a group the processes share the rows of every batch, the gradients are added up before the weights move, and each has the same weights
/// then: the course is that of one process but for rounding, at least with synchronised batch statistics. `hand_back` of one rank counts for
/// all, `cancel` and whatever else ends one rank ends the others as preempted, with a RankError's sentence. Rank 0 alone writes checkpoints and
/// artifacts; the others need to see the folder. A checkpoint does not say how many there were: another number may go on.
///
/// Where memory runs out rows at once are halved and the step is done again (with a group the outcome is oom: begin again with fewer
/// `rows_at_once`); the number of rows that move the weights once stays. Everything
/// that may happen to a retraining is an outcome: cancelled, preempted, oom (even the smallest batch did not fit), failed (with a
/// sentence). Throws ModelError for a device that is not there.
RetrainingOutcome retrain(const RetrainingJob& job, const RetrainContext& context = {});

}  // namespace fusion
