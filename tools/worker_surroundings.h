#pragma once

#include <string>

#include "tools/run_main.h"
#include "workers/client/worker_client.h"

namespace fusion {

/// What a worker learns from where it runs: the daemon's address and the token from the environment, job, node and time limit from a batch
/// system, and the options that change them. The options are the same in every program that is a worker.
class WorkerSurroundings {
 public:
  /// Reads FUSION_URL, FUSION_TOKEN, FUSION_TOKEN_FILE, FUSION_CA and the batch job; adds --connect, --token-file, --ca, --grace, --wall-time, --first-pack-time and
  /// --leave-status. Must outlive `app`.
  void add_options(CLI::App& app);
  /// Throws ConfigError or DataError for a wrong address, token or time.
  void apply(WorkerClientOptions& options) const;
  /// The exit status for how the worker ended, with a line in the log: 0, `--leave-status` where it left before its time (a signal, its wall
  /// time), 1 where its device was lost.
  int exit_status(WorkerEnd end) const;

 private:
  std::string url_ = "http://127.0.0.1:7878", token_file_, ca_file_;
  double grace_s_ = 0, wall_time_s_ = -1, first_pack_s_ = 60;
  int leave_status_ = 0;
};

}  // namespace fusion
