#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "workers/client/pack_session.h"
#include "workers/data/features.h"
#include "workers/train/trainer.h"

namespace fusion {

/// What a worker does with a pack: opens the features its header names (kept open from pack to pack), keeps one weight bank per study,
/// and trains. Used by the training thread only.
class WorkerTrainer {
 public:
  /// `pack`: trials to train at once.
  WorkerTrainer(std::string device, std::size_t pack) : device_(std::move(device)), pack_(pack) {}

  /// Trains what the session has and gets (workers/train/trainer.h). A trial that does not fit the features fails alone. Throws Error for
  /// features that are not as the study expects them: the caller fails every trial with it.
  void operator()(PackSession& session);

 private:
  const FeatureSet& features(const protocol::PackHeader& header);

  std::string device_;
  std::size_t pack_;
  std::shared_ptr<const FeatureSet> open_;
  std::string open_path_;
  std::map<StudyId, WeightBank> banks_;
};

}  // namespace fusion
