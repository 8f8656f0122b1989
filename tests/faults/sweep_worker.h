#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "tests/faults/witness.h"

namespace fusion::testing {

/// A worker of one thread that scores architectures by a formula, two epochs each, and says one thing at a time: it waits for each
/// acknowledgement. So what it does is the same in each run. Keeps what is not acknowledged over connections, as a worker must.
class SweepWorker {
 public:
  explicit SweepWorker(Witness& witness);
  ~SweepWorker();

  /// Connects and works until so many results are acknowledged in all, or, as `done` says whenever the daemon is silent, there is nothing left to
  /// do; or until the connection ends. False for the latter; else it is still connected.
  bool work(std::uint16_t port, std::size_t results, const std::function<bool()>& done);
  /// Reads until the daemon ends the connection.
  void stay_to_the_end();

  static double score_of(const Architecture& architecture, int epoch);

 private:
  class Line;
  void take(const protocol::Pack& pack);
  void take(const protocol::Ack& ack);
  void take(const protocol::Cancel& cancel);
  void hear(const protocol::Message& message);
  void say_next();

  Witness& witness_;
  std::unique_ptr<Line> line_;
  std::deque<std::pair<protocol::Held, protocol::Message>> reports_;  ///< in their order; the first one was said if `waiting_`
  bool waiting_ = false;
};

}  // namespace fusion::testing
