#pragma once

#include <map>
#include <memory>
#include <string>

#include "space/trial.h"
#include "workers/client/worker_client.h"
#include "workers/data/features.h"
#include "workers/train/autograd_trainer.h"

namespace fusion {

/// What a worker does with a trial: opens the features its pack names (kept open from pack to pack), keeps one weight bank per study,
/// and trains. Used by the training thread only.
class WorkerTrainer {
 public:
  explicit WorkerTrainer(std::string device) : device_(std::move(device)) {}

  /// Throws Error for features that are not as the study expects them: the caller makes it the outcome failed.
  TrialOutcome operator()(const protocol::Pack& pack, const TrialJob& job, std::stop_token stop,
                          const std::function<void(const EpochReport&)>& on_epoch);

 private:
  const FeatureSet& features(const protocol::Pack& pack);

  std::string device_;
  std::shared_ptr<const FeatureSet> open_;
  std::string open_path_;
  std::map<StudyId, WeightBank> banks_;
};

}  // namespace fusion
