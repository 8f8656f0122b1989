#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/asio.h"
#include "workers/launch/launcher.h"

namespace fusion {

struct LocalLauncherOptions {
  int count = 1;                       ///< to begin with
  std::string program;                 ///< empty: fusion-worker beside the running program
  std::vector<std::string> arguments;  ///< the same for all
  /// Worker n is told `--name <prefix>-<n>`. Once started again it has the same name, so that the daemon sees at once what was lost with
  /// its predecessor. By default "local-<pid of this process>"; empty: no such argument.
  std::string name_prefix = default_name_prefix();
  /// Handed on as `--device`; "cuda" spreads the workers over cuda:0, cuda:1, ... Empty: no such argument.
  std::string device = "cpu";
  /// Hands on `--die-with-parent`: the kernel tells a worker (SIGTERM) when this process is gone, however it went.
  bool die_with_parent = true;
  /// Added to the daemon's own. OMP_NUM_THREADS and OPENBLAS_NUM_THREADS are 1 unless named here: several processes of one thread
  /// each are many times as fast as threads that wait for each other.
  std::map<std::string, std::string> environment;
  /// One core for each worker on the CPU, where there are enough.
  bool pin = true;
  /// The pause before a worker is started again: doubled each time up to `backoff_max`, as at first once one lived for `settled`.
  std::chrono::milliseconds backoff_min{1'000}, backoff_max{60'000}, settled{60'000};
  /// How long `stop` waits after SIGTERM before it kills. A worker that leaves may wait 10 s for acknowledgements.
  std::chrono::milliseconds stop_wait{15'000};
  /// How long one that was asked over its connection to leave may take until it is told SIGTERM.
  std::chrono::milliseconds leave_wait{30'000};

  static std::string default_name_prefix();
};

/// Workers as child processes of the daemon, on its own host.
///
/// A worker that ends is started again, whatever its exit status, except 2: that is bad input, which stays bad, and its sentence
/// stands on the shared stderr. One that is to leave is not started again. Children are told SIGTERM by `stop`; those that a launcher being destroyed still has are killed.
///
/// The kernel counts the thread that started a worker as its parent: `io` must be run by a thread that lives as long as the process.
class LocalLauncher final : public Launcher {
 public:
  LocalLauncher(asio::io_context& io, LocalLauncherOptions options);
  ~LocalLauncher() override;

  /// Throws ConfigError if the program is not there or not executable.
  void start() override;
  int may_launch() const override;
  void launch(int count) override;
  int withdraw(int count) override;
  void retire(const std::set<std::string>& names) override;
  void connected(const std::set<std::string>&) override {}
  void stop(std::function<void()> done) override;
  std::vector<LaunchedWorker> workers() const override;
  std::string problem() const override;
  bool stuck() const override;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;  // handlers under way hold it weakly
};

}  // namespace fusion
