#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

namespace fusion::bench {

struct FleetOptions {
  int workers = 64;
  int idle = 0;       ///< further connections that never have room: they say hello and send heartbeats
  int pack = 1;       ///< trials each worker trains at once
  int slots = 2;      ///< and holds
  int epochs = 3;     ///< reports per trial
  std::chrono::microseconds training{0};  ///< how long a trial takes on average, from a half of it to one and a half; a report after each epoch. 0: all at once
};

/// What the daemon acknowledged, and when.
struct FleetFigures {
  using Time = std::chrono::steady_clock::time_point;
  std::vector<Time> results;             ///< of each acknowledged result, in order
  std::vector<std::int64_t> trials;      ///< whose they were
  std::int64_t reports = 0;              ///< acknowledged epochs
  std::int64_t refused = 0;              ///< acknowledgements that said "not accepted"
  std::vector<double> dispatch_ms;       ///< from a result's acknowledgement to the next pack at that worker
  std::vector<double> turnaround_ms;     ///< from a result being handed to the socket to the next pack at that worker
  std::vector<double> ack_ms;            ///< from a result being handed to the socket to its acknowledgement
};

/// The `share` quantile (0.99); 0 of nothing.
double quantile(std::vector<double> values, double share);

/// Workers that train nothing: they speak the real protocol over WebSockets on loopback, all in the thread that calls.
class Fleet {
 public:
  Fleet(std::uint16_t port, FleetOptions options);
  ~Fleet();
  /// Connects everybody; returns when all were welcomed.
  void connect();
  /// Runs until so many results (in all) were acknowledged. Throws Error where no result comes for 60 s.
  void run_until_results(std::size_t count);
  void run_for(std::chrono::milliseconds time);
  /// Latencies and times from now on; counts go on.
  void forget_figures();
  const FleetFigures& figures() const;
  /// Connected, welcomed, and not cut off since.
  int connected() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fusion::bench
