#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "tests/attack/clients.h"

namespace fusion::attack {

/// What those who do no harm met with meanwhile.
struct Served {
  std::vector<double> waited_ms;
  std::uint64_t failed = 0;
  std::string first_failure;
  double worst_ms() const;
  double quantile_ms(double q) const;
};

/// Clients that go on asking while the daemon is attacked: some with a new connection each time, one that keeps its own, and a worker that
/// reports epochs of its trial and waits for each acknowledgement (so for the disk).
class HonestClients {
 public:
  /// The study must have a trial to give. `threads` clients with new connections.
  HonestClients(const Target& target, int threads);
  ~HonestClients() { stop(); }
  HonestClients(const HonestClients&) = delete;
  HonestClients& operator=(const HonestClients&) = delete;

  void stop();
  // After stop:
  Served newcomers() const;
  const Served& steady() const { return steady_; }
  const Served& worker() const { return worker_; }
  /// The trial that the worker holds; its leases are the ones to lie about.
  protocol::Held held() const { return held_; }

 private:
  void ask_anew(Served& served);
  void keep_asking();
  void report();

  const Target& target_;
  Worker session_;
  protocol::Held held_;
  std::atomic<bool> stopping_ = false;
  std::vector<Served> newcomers_;  // one for each thread
  Served steady_, worker_;
  std::vector<std::thread> threads_;
};

}  // namespace fusion::attack
