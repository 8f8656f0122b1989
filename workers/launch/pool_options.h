#pragma once

#include <chrono>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/json_reader.h"

namespace fusion {

enum class LauncherKind { local, slurm };
template <>
struct EnumNames<LauncherKind> {
  static constexpr std::array<std::pair<LauncherKind, std::string_view>, 2> kTable{{{LauncherKind::local, "local"}, {LauncherKind::slurm, "slurm"}}};
  static constexpr std::string_view kWhat = "launcher";
};

/// What becomes of a pool's workers when the daemon stops.
enum class OnStop {
  keep,    ///< they go on with what they hold and wait for the next daemon; it adopts them
  cancel,  ///< they are ended
};
template <>
struct EnumNames<OnStop> {
  static constexpr std::array<std::pair<OnStop, std::string_view>, 2> kTable{{{OnStop::keep, "keep"}, {OnStop::cancel, "cancel"}}};
  static constexpr std::string_view kWhat = "on_stop";
};

/// A number of like workers: one entry of `pools` (configs/README.md).
struct PoolOptions {
  std::string name;
  LauncherKind launcher = LauncherKind::local;
  int min = 0;                      ///< kept also when there is nothing to do
  int max = 1;
  int trials_per_worker = 0;        ///< for how many open trials there ought to be a worker; 0: what its workers train at once, 8 before one came
  double shrink_after_s = 300;      ///< more than needed for so long, then idle ones leave
  std::string worker_program;       ///< default: fusion-worker beside the daemon. With Slurm a path on the node
  std::vector<std::string> worker_args;  ///< further arguments of the worker
  std::string device;               ///< its --device; default cpu, with gpus_per_worker cuda:0. With local workers cuda spreads them
  std::map<std::string, std::string> environment;  ///< of the workers, on top of what they are told anyway

  // ---- slurm only
  std::string url;                  ///< where workers find the daemon; default: the address that it listens on
  std::string token_file;           ///< mode 0600, seen by the nodes under that path
  int cpus_per_worker = 1, gpus_per_worker = 0;
  std::string memory, time, partition, account, qos;  ///< as sbatch takes them; empty: not said
  std::vector<std::string> extra_args;                ///< of sbatch, last
  std::string prologue;             ///< lines of shell before the worker
  std::string script_template;      ///< key `template`: a file; default kDefaultJobTemplate
  std::string log_folder;           ///< of the jobs' output, on a path that the nodes have; default: in the pools' folder
  OnStop on_stop = OnStop::keep;

  nlohmann::json to_json() const;
};

/// How often and how long Slurm is asked; key `slurm`.
struct SlurmTimes {
  double poll_s = 10;          ///< squeue, while something changes
  double steady_poll_s = 60;   ///< squeue, else
  double command_s = 30;       ///< a command of Slurm's that takes longer is killed
  double absent_s = 60;        ///< a job that two polls did not show is gone, once it is as old as this
  double leave_s = 30;         ///< a worker told to leave that is still there then is ended with scancel
  double connect_s = 300;      ///< a job that runs without its worker having come is told of
  double retry_s = 10;         ///< pause after a failure, doubled each time
  double retry_most_s = 600;   ///< up to this

  static SlurmTimes read(JsonReader reader);
  nlohmann::json to_json() const;
};

/// The elements of `pools`; problems go to the reader. A relative path is left as it is.
std::vector<PoolOptions> read_pools(JsonReader& reader);
nlohmann::json pools_json(const std::vector<PoolOptions>& pools);

}  // namespace fusion
