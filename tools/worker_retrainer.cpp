#include "tools/worker_retrainer.h"

#include <torch/cuda.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "model/device.h"
#include "tools/rank_team.h"
#include "workers/client/worker_condition.h"
#include "workers/train/export_model.h"
#include "workers/train/rank_group.h"
#include "workers/train/retrain.h"

namespace fusion {

namespace {

/// One per process: the worker's GPU and those behind it. Throws ConfigError where there are not so many.
std::vector<std::string> devices_of_ranks(const std::string& device, int processes) {
  const int first = gpu_index(device);
  if (first < 0) return std::vector<std::string>(static_cast<std::size_t>(processes), "cpu");
  const int there = static_cast<int>(torch::cuda::device_count());
  if (first + processes > there) {
    throw ConfigError("the retraining wants " + std::to_string(processes) + " GPUs, but this worker on " + device + " sees " +
                      std::to_string(there - first) + " from there on; start one that sees more (CUDA_VISIBLE_DEVICES, gpus_per_worker), or retrain "
                      "with --gpus " + std::to_string(there - first));
  }
  std::vector<std::string> devices;
  for (int rank = 0; rank < processes; ++rank) devices.push_back("cuda:" + std::to_string(first + rank));
  return devices;
}

}  // namespace

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
  try {
    const DatasetSource::Located located = locate(session);
    RetrainingJob job = session.job();
    job.dataset_path = located.manifest.string();
    RetrainingOutcome outcome;
    work_on_device(lost_, [&] { outcome = job.options.processes > 1 ? with_ranks(job, session) : alone(job, session); });
    if (outcome.outcome == Outcome::failed) throw_if_lost(lost_);
    session.on_end(std::move(outcome));
  } catch (const FetchStopped& error) {
    session.on_end(session.cancel().stop_requested() ? Outcome::cancelled : Outcome::preempted, error.what());
  }
}

RetrainingOutcome WorkerRetrainer::alone(const RetrainingJob& job, RetrainingSession& session) const {
  RetrainContext context;
  context.device = device_;
  context.cancel = session.cancel();
  context.hand_back = session.hand_back();
  context.on_epoch = [&](const RetrainingEpoch& epoch) { session.on_epoch(epoch); };
  context.on_progress = [&](const RetrainingProgress& progress) { session.on_progress(progress); };
  context.export_model = export_model;
  return retrain(job, context);
}

RetrainingOutcome WorkerRetrainer::with_ranks(const RetrainingJob& job, RetrainingSession& session) const {
  if (const std::string why = RankGroup::why_not(device_from_text(device_)); !why.empty()) throw ConfigError(why);
  RankTeamOptions team;
  team.program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "fusion-rank";
  team.devices = devices_of_ranks(device_, job.options.processes);
  team.cancel = session.cancel();
  team.hand_back = session.hand_back();
  team.on_epoch = [&](const RetrainingEpoch& epoch) { session.on_epoch(epoch); };
  team.on_progress = [&](const RetrainingProgress& progress) { session.on_progress(progress); };
  return retrain_with_ranks(job, team);
}

}  // namespace fusion
