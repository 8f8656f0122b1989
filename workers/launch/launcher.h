#pragma once

#include <functional>
#include <string>
#include <vector>

namespace fusion {

/// One worker process as a launcher sees it, for `fusionctl workers` and logs.
struct LaunchedWorker {
  std::string name;
  std::string state;   ///< "running", "waiting" (to be started again) or "ended"
  std::int64_t pid = 0;
  int starts = 0;      ///< times it was started
};

/// Starts worker processes and keeps them alive. Everything is called on the daemon's I/O thread.
class Launcher {
 public:
  virtual ~Launcher() = default;
  virtual void start() = 0;
  /// Asks every worker to end, and ends those that will not; `stopped` is called once none is left. Nothing is started again.
  virtual void stop(std::function<void()> stopped) = 0;
  virtual std::vector<LaunchedWorker> workers() const = 0;
};

}  // namespace fusion
