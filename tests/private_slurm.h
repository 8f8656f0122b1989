#pragma once

#include <signal.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/end_to_end/process.h"
#include "tests/temporary_folder.h"

namespace fusion::testing {

/// A cluster of Slurm's own programs on this machine, for one test: munged, slurmctld, and a slurmd for each of node1, node2. Key, socket,
/// configuration and state lie in a folder of its own, every port is on loopback, nothing of the system's is used. Gone with the object, jobs first.
///
/// Nodes claim 4 CPUs, 4000 MB and 2 GPUs each (null devices: no driver is touched). Partitions: low (default; its jobs are requeued where high wants
/// their place), high, nopre (neither), closed (nobody may submit to it). Short times: 3 s from SIGTERM to SIGKILL, 3 s of grace, 10 s until a
/// silent node is down, 6 s until a requeued job may start.
class PrivateSlurm {
 public:
  /// Why there can be none here; empty where there can.
  static std::string missing();

  /// Returns when both nodes are idle. Fails the test where that does not come to pass.
  PrivateSlurm();
  ~PrivateSlurm();

  /// What a process needs to find it.
  std::map<std::string, std::string> environment() const { return {{"SLURM_CONF", conf().string()}}; }
  /// Where its configuration, state, spool and logs lie.
  const std::filesystem::path& folder() const { return folder_.path(); }
  /// The output of one of Slurm's commands; fails the test if it does not exit 0.
  std::string ask(const std::vector<std::string>& command) const;
  /// Lines of `squeue -r -t STATES -o FORMAT`.
  std::vector<std::string> jobs(const std::string& states = "all", const std::string& format = "%F_%K %T %N %P") const;

  /// As if it lost its power: slurmd, the keepers of its jobs and the jobs, all with SIGKILL.
  void kill_node(const std::string& node);
  /// As if the network to it were gone: slurmd alone, with SIGKILL. What runs there goes on until it is started again.
  void silence_node(const std::string& node) { daemons_.at(node)->signal(SIGKILL); }
  void start_node(const std::string& node);
  void stop_controller();
  void start_controller() { run_controller(false); }

 private:
  std::filesystem::path conf() const { return folder_ / "slurm.conf"; }
  void write_configuration();
  void start(const std::string& name, std::vector<std::string> command);
  void run_controller(bool fresh);
  bool wait_until_idle() const;
  /// Processes of jobs of this cluster, on one node or (empty) on all, each behind its keeper.
  std::vector<pid_t> job_processes(const std::string& node) const;

  TemporaryFolder folder_;
  std::map<std::string, std::unique_ptr<Process>> daemons_;
};

}  // namespace fusion::testing
