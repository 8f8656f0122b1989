#include "tools/worker_retrainer.h"

#include <torch/cuda.h>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "model/device.h"
#include "tools/rank_team.h"
#include "workers/train/export_model.h"
#include "workers/train/rank_group.h"
#include "workers/train/retrain.h"

namespace fusion {

namespace {

/// One per process: the worker's GPU and those behind it. Throws ConfigError where there are not so many.
std::vector<std::string> devices_of_ranks(const std::string& device, int processes) {
  const int first = gpu_index(device);
  if (first < 0) return std::vector<std::string>(static_cast<std::size_t>(processes), "cpu");
  const int most = *WorkerRetrainer::most_processes(device);
  if (processes > most) {
    throw ConfigError("the retraining wants " + std::to_string(processes) + " GPUs, but this worker on " + device + " sees " + std::to_string(most) +
                      " from there on; start one that sees more (CUDA_VISIBLE_DEVICES, gpus_per_worker), or retrain with --gpus " +
                      std::to_string(most));
  }
  std::vector<std::string> devices;
  for (int rank = 0; rank < processes; ++rank) devices.push_back("cuda:" + std::to_string(first + rank));
  return devices;
}

}  // namespace

std::optional<int> WorkerRetrainer::most_processes(const std::string& device) {
  if (!RankGroup::why_not(device_from_text(device)).empty()) return 1;
  const int first = gpu_index(device);
  return first < 0 ? std::nullopt : std::optional(static_cast<int>(torch::cuda::device_count()) - first);
}

void WorkerRetrainer::operator()(RetrainingSession& session) const {
  const auto stopped = [&session] { return session.cancel().stop_requested() || session.hand_back().stop_requested(); };
  try {
    const DatasetSource::Located located =
        source_.locate(session.job().dataset_path, session.job().dataset_digest, DatasetSource::Depth::inputs, stopped);
    retrain_in_folder(source_.options(), session, [&](RetrainingJob job, RetrainingFolder& folder) {
      job.dataset_path = located.manifest.string();
      RetrainingOutcome outcome;
      work_on_device(lost_, [&] { outcome = job.options.processes > 1 ? with_ranks(job, session, folder) : alone(job, session, folder); });
      if (outcome.outcome == Outcome::failed) throw_if_lost(lost_);
      return outcome;
    });
  } catch (const FetchStopped& error) {
    session.on_end(session.cancel().stop_requested() ? Outcome::cancelled : Outcome::preempted, error.what());
  }
}

RetrainingOutcome WorkerRetrainer::alone(const RetrainingJob& job, RetrainingSession& session, RetrainingFolder& folder) const {
  RetrainContext context;
  context.device = device_;
  context.cancel = session.cancel();
  context.hand_back = session.hand_back();
  context.on_epoch = [&](const RetrainingEpoch& epoch) {
    folder.offer();
    session.on_epoch(epoch);
  };
  context.on_progress = [&](const RetrainingProgress& progress) { session.on_progress(progress); };
  context.export_model = export_model;
  return retrain(job, context);
}

RetrainingOutcome WorkerRetrainer::with_ranks(const RetrainingJob& job, RetrainingSession& session, RetrainingFolder& folder) const {
  if (const std::string why = RankGroup::why_not(device_from_text(device_)); !why.empty()) throw ConfigError(why);
  RankTeamOptions team;
  team.program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "fusion-rank";
  team.devices = devices_of_ranks(device_, job.options.processes);
  team.cancel = session.cancel();
  team.hand_back = session.hand_back();
  team.on_epoch = [&](const RetrainingEpoch& epoch) {
    folder.offer();
    session.on_epoch(epoch);
  };
  team.on_progress = [&](const RetrainingProgress& progress) { session.on_progress(progress); };
  return retrain_with_ranks(job, team);
}

}  // namespace fusion
