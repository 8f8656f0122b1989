#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "workers/launch/launcher.h"
#include "workers/launch/pool_options.h"
#include "workers/launch/slurm_queue.h"

namespace fusion {

/// Workers as jobs of Slurm: one element of an array each, submitted in small arrays, counted with squeue, taken away with scancel.
///
/// Its jobs are known by their comment, `fusion:<daemon id>:<pool>:<launch id>`. So a daemon that is started again adopts them, and an sbatch whose
/// answer was lost is not said again before squeue has shown whether it was accepted. Nothing is submitted before the first good poll.
///
/// A refusal, and a job that ends before its worker came, are told in `problem()` with Slurm's own words, and make a pause that is doubled each
/// time; a worker that comes ends it. Until then one is launched at a time, and none while another one may still tell whether it does better. Jobs
/// of one launch that end so count once.
///
/// The job gets FUSION_URL, and FUSION_TOKEN_FILE where the pool has one: nothing that is secret stands in a command line, a comment or a script.
class SlurmLauncher final : public Launcher {
 public:
  struct Setting {
    std::string daemon_id;
    std::string url;                ///< where workers find the daemon
    std::string worker_program;     ///< where the pool names none
    std::string log_level = "info";
    std::filesystem::path folder;   ///< of the pools: logs of jobs, and the script for people to look at
  };
  /// Throws ConfigError: a template that cannot be read or has a wrong variable, a token file that others may read.
  SlurmLauncher(SlurmQueue& queue, PoolOptions pool, const SlurmTimes& times, Setting setting);
  ~SlurmLauncher() override;

  void start() override;
  int may_launch() const override;
  void launch(int count) override;
  int withdraw(int count) override;
  void retire(const std::set<std::string>& names) override;
  void connected(const std::set<std::string>& names) override;
  void stop(std::function<void()> done) override;
  std::vector<LaunchedWorker> workers() const override;
  std::string problem() const override;
  bool stuck() const override;

  /// What sbatch is told for `count` workers. The launch id ends the comment.
  std::vector<std::string> sbatch_arguments(int count, const std::string& launch) const;
  const std::string& script() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;  // handlers under way hold it weakly
};

}  // namespace fusion
