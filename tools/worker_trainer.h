#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tools/lost_device.h"
#include "workers/client/dataset_source.h"
#include "workers/client/pack_session.h"
#include "workers/data/features.h"
#include "workers/train/trainer.h"

namespace fusion {

/// What a worker does with a pack: opens the features its header names (kept open from pack to pack), keeps one weight bank per study,
/// and trains. Used by the training thread only.
class WorkerTrainer {
 public:
  /// `pack`: trials to train at once. `source` must outlive it.
  WorkerTrainer(std::string device, std::size_t pack, DatasetSource& source) : device_(std::move(device)), pack_(pack), source_(source) {}

  /// Where the device is gone, no trial has failed: those that did go back, and DeviceLost is thrown.
  void set_lost(AskLost lost) { lost_ = std::move(lost); }

  /// What a pack may take when it begins: trials at once, at most `pack`, and bytes of the device's memory (0: what is free).
  struct Room {
    std::size_t trials = 0;
    std::int64_t memory_bytes = 0;
  };
  /// Asked before every pack; without it always `pack` trials.
  void set_room(std::function<Room()> room) { room_ = std::move(room); }

  /// Trains what the session has and gets (workers/train/trainer.h). A trial that does not fit the features fails alone. Throws Error for
  /// features that are not as the study expects them: the caller fails every trial with it; UnreadableData where it cannot get them.
  void operator()(PackSession& session);

 private:
  void train(PackSession& session);
  PackContext context_of(PackSession& session, const DatasetSpec& dataset);
  const FeatureSet& features(const protocol::PackHeader& header, const std::function<bool()>& stopped);
  void open(const protocol::PackHeader& header, const std::function<bool()>& stopped);

  std::string device_;
  std::size_t pack_;
  DatasetSource& source_;
  AskLost lost_;
  std::function<Room()> room_;
  DatasetSource::Located located_;  // of open_
  std::shared_ptr<const FeatureSet> open_;
  std::string open_path_;
  std::map<StudyId, WeightBank> banks_;
};

}  // namespace fusion
