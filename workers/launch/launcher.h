#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace fusion {

/// Where a launched worker stands.
struct LaunchedWorker {
  std::string name;         ///< as it calls itself towards the daemon; empty if it was told no name
  std::string state;        ///< "running", "waiting" (for its next start), "given_up", "stopped"
  std::int64_t process = 0; ///< process id, or the batch system's job; 0 while there is none
  int starts = 0;           ///< so far
  std::string last_end;     ///< how it ended last: "exit status 2", "signal 9"; empty if it never did
};

/// Keeps a number of workers in being. It never decides whether a trial is over: the lease between daemon and worker does.
///
/// Lives on the daemon's I/O thread: every function is called there, every callback is made there.
class Launcher {
 public:
  virtual ~Launcher() = default;
  /// Starts the workers, and from then on replaces those that end. Call once. Throws ConfigError for what can never work.
  virtual void start() = 0;
  /// Asks all to end, waits for it, and calls `done` when none is left. Nothing is replaced any more.
  virtual void stop(std::function<void()> done) = 0;
  virtual std::vector<LaunchedWorker> workers() const = 0;
};

}  // namespace fusion
