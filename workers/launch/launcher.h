#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace fusion {

/// Where a launched worker stands.
struct LaunchedWorker {
  /// What makes it known among the connected ones: the name it was told (local), or the job it says it runs in ("4711_3", Slurm).
  std::string name;
  /// "running", "waiting" (for its next start, or in a queue), "closing" (neither alive nor gone), "leaving" (told to, nobody counts on
  /// it any more), "given_up", "stopped".
  std::string state;
  std::int64_t process = 0;  ///< process id, or the batch system's job; 0 while there is none
  int starts = 0;            ///< so far
  std::string last_end;      ///< how it ended last: "exit status 2", "signal 9"; empty if it never did
  std::string detail;        ///< the batch system's own words: "PENDING (Resources)"
  std::string node;          ///< where it runs, if that is not this host
  double since_s = 0;        ///< how long the launcher has known it

  /// Whoever sizes a pool counts on it.
  bool counts() const { return state == "running" || state == "waiting" || state == "closing"; }
};

/// Brings workers into being and takes them away; how many there ought to be, somebody else decides (workers/launch/pool_size.h). It never
/// decides whether a trial is over: the lease between daemon and worker does.
///
/// Lives on the daemon's I/O thread: every function is called there, every callback is made there.
class Launcher {
 public:
  virtual ~Launcher() = default;
  /// Call once, before anything else. Throws ConfigError for what can never work.
  virtual void start() = 0;
  /// How many `launch` may be told of now: 0 while it does not know what is there already, or pauses after a failure.
  virtual int may_launch() const = 0;
  /// Begins so many more; at most `may_launch()`.
  virtual void launch(int count) = 0;
  /// Takes back up to `count` that wait and have not begun; returns how many.
  virtual int withdraw(int count) = 0;
  /// These were asked over their connection to leave. They are not replaced, and ended by force if they are still there some time later.
  virtual void retire(const std::set<std::string>& names) = 0;
  /// Those of any launcher that are connected now, by `LaunchedWorker::name`; told about once a second.
  virtual void connected(const std::set<std::string>& names) = 0;
  /// Nothing is launched or replaced any more. What becomes of workers that run is the launcher's to say; `done` is called
  /// when it has come to that, perhaps from within.
  virtual void stop(std::function<void()> done) = 0;
  virtual std::vector<LaunchedWorker> workers() const = 0;
  /// A sentence: why there are fewer workers than there ought to be, in the batch system's own words where it has any. Else empty.
  virtual std::string problem() const = 0;
  /// What is wrong will not pass by itself soon: others should do the work.
  virtual bool stuck() const = 0;
};

}  // namespace fusion
