#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/asio.h"
#include "workers/launch/launcher.h"

namespace fusion {

struct LocalLauncherOptions {
  int count = 1;
  std::string program;                  ///< path of fusion-worker
  std::vector<std::string> arguments;   ///< `--name local-<pid of the daemon>-<n>` and `--device` are put behind them
  std::string device = "cpu";           ///< "cpu", "cuda:N", or "cuda": worker n gets cuda:n
  std::map<std::string, std::string> environment;  ///< on top of the daemon's own
  bool pin = true;                      ///< one core each, where there are enough; on the CPU only
  std::chrono::milliseconds first_delay{1'000}, longest_delay{60'000};  ///< before a worker that ended is started again; doubles
  std::chrono::milliseconds healthy{60'000};   ///< a life this long brings the delay back to the first
  std::chrono::milliseconds patience{20'000};  ///< after SIGTERM, before SIGKILL
  bool quiet_arguments = false;         ///< tests: pass `arguments` alone
};

/// Child processes on this host, one per GPU or per share of the CPU.
///
/// Each gets OMP_NUM_THREADS and OPENBLAS_NUM_THREADS of 1 (libraries that spin on a shared core cost a factor of 50), inherits
/// stderr, and is told by the kernel (SIGTERM) when the daemon dies, however it dies. One that ends is started again after a delay
/// that doubles, except after exit status 2: its input is wrong and will be wrong again.
class LocalLauncher final : public Launcher {
 public:
  /// Throws ConfigError if the program is not there or cannot be run.
  LocalLauncher(asio::io_context& io, LocalLauncherOptions options);
  ~LocalLauncher() override;

  void start() override;
  void stop(std::function<void()> stopped) override;
  std::vector<LaunchedWorker> workers() const override;

 private:
  struct Child {
    int index = 0;
    pid_t pid = -1;
    int starts = 0;
    bool given_up = false;
    std::chrono::steady_clock::time_point started;
    std::chrono::milliseconds delay{0};
    std::unique_ptr<asio::steady_timer> again;
  };
  std::string name_of_child(const Child& child) const;
  void launch(Child& child);
  void wait_for_exits();
  void reap();
  void ended(Child& child, int status);
  void check_stopped();

  asio::io_context& io_;
  LocalLauncherOptions options_;
  asio::signal_set exits_;
  asio::steady_timer patience_;
  std::vector<Child> children_;
  bool stopping_ = false;
  std::function<void()> stopped_;
};

}  // namespace fusion
