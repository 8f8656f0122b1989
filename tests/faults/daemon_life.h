#pragma once

#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "tools/daemon_config.h"

namespace fusion::testing {

/// A daemon in this process, on a thread of its own, from its start to its end: the class that `fusiond` is made of.
class DaemonLife {
 public:
  explicit DaemonLife(DaemonConfig config);
  ~DaemonLife();

  /// Waits until it listens; nullopt: it ended instead.
  std::optional<std::uint16_t> port();
  bool ended() const;
  /// Waits for its end, and returns the status that fusiond would exit with. Throws Error if that takes longer than `limit`: it hangs, and
  /// so may whoever still needs it.
  int wait(std::chrono::seconds limit = std::chrono::seconds(120));
  /// Why it did not start, or what it logged as an error; empty if it said nothing. After `wait`.
  std::string sentence() const;

  /// Puts an end to logs on stderr, and has errors kept for `sentence`. Once, before the first daemon.
  static void keep_errors_of_logs();

 private:
  struct State;
  std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace fusion::testing
