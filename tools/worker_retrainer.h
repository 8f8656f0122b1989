#pragma once

#include <optional>
#include <string>
#include <utility>

#include "tools/lost_device.h"
#include "workers/client/dataset_source.h"
#include "workers/client/retraining_folder.h"
#include "workers/client/retraining_session.h"

namespace fusion {

/// What a worker does with a retraining: hands the job to `retrain` (workers/train/retrain.h) with TorchScript export (workers/train/export_model.h)
/// as its last artifact, and its reports to the session. One for several processes goes to as many ranks (tools/rank_team.h), each on a GPU of its own,
/// from the worker's on, or all on the CPU. On a host that does not share the daemon's artifacts folder what it makes is sent there
/// (workers/client/retraining_folder.h). Used by the training thread only.
class WorkerRetrainer {
 public:
  /// `source` must outlive it.
  WorkerRetrainer(std::string device, DatasetSource& source) : device_(std::move(device)), source_(source) {}
  /// Where the device is gone, the retraining has not failed: DeviceLost is thrown.
  void set_lost(AskLost lost) { lost_ = std::move(lost); }
  void operator()(RetrainingSession& session) const;
  /// How many processes one may have: on a GPU so many as are visible from `device` on, 1 where this program was built without what it takes; none: any number.
  static std::optional<int> most_processes(const std::string& device);

 private:
  RetrainingOutcome alone(const RetrainingJob& job, RetrainingSession& session, RetrainingFolder& folder) const;
  RetrainingOutcome with_ranks(const RetrainingJob& job, RetrainingSession& session, RetrainingFolder& folder) const;

  std::string device_;
  DatasetSource& source_;
  AskLost lost_;
};

}  // namespace fusion
