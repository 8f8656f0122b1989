#pragma once

#include <string>
#include <utility>

#include "tools/lost_device.h"
#include "workers/client/retraining_session.h"

namespace fusion {

/// What a worker does with a retraining: hands the job to `retrain` (workers/train/retrain.h) with TorchScript export (workers/train/export_model.h)
/// as its last artifact, and its reports to the session. Used by the training thread only.
class WorkerRetrainer {
 public:
  explicit WorkerRetrainer(std::string device) : device_(std::move(device)) {}
  /// Where the device is gone, the retraining has not failed: DeviceLost is thrown.
  void set_lost(AskLost lost) { lost_ = std::move(lost); }
  void operator()(RetrainingSession& session) const;

 private:
  std::string device_;
  AskLost lost_;
};

}  // namespace fusion
