#include "tools/worker_retrainer.h"

#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "workers/client/worker_condition.h"
#include "workers/train/export_model.h"
#include "workers/train/retrain.h"

namespace fusion {

// Checkpoints and models go into a folder of the daemon's; where the data came over the network that one must be shared all the same.
DatasetSource::Located WorkerRetrainer::locate(const RetrainingSession& session) const {
  const RetrainingJob& job = session.job();
  const auto stopped = [&session] { return session.cancel().stop_requested() || session.hand_back().stop_requested(); };
  if (!std::filesystem::is_directory(job.folder) && ::access(job.dataset_path.c_str(), R_OK) != 0) {
    throw UnreadableData("retraining " + to_string(job.retraining) + " writes into " + job.folder +
                         ", which is not on this host; share the daemon's artifacts folder with it, or let a worker retrain that has it");
  }
  return source_.locate(job.dataset_path, job.dataset_digest, DatasetSource::Depth::inputs, stopped);
}

void WorkerRetrainer::operator()(RetrainingSession& session) const {
  RetrainContext context;
  context.device = device_;
  context.cancel = session.cancel();
  context.hand_back = session.hand_back();
  context.on_epoch = [&](const RetrainingEpoch& epoch) { session.on_epoch(epoch); };
  context.on_progress = [&](const RetrainingProgress& progress) { session.on_progress(progress); };
  context.export_model = export_model;
  try {
    const DatasetSource::Located located = locate(session);
    RetrainingJob job = session.job();
    job.dataset_path = located.manifest.string();
    RetrainingOutcome outcome;
    work_on_device(lost_, [&] { outcome = retrain(job, context); });
    if (outcome.outcome == Outcome::failed) throw_if_lost(lost_);
    session.on_end(std::move(outcome));
  } catch (const FetchStopped& error) {
    session.on_end(session.cancel().stop_requested() ? Outcome::cancelled : Outcome::preempted, error.what());
  }
}

}  // namespace fusion
