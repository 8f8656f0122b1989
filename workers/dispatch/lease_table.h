#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "workers/protocol/messages.h"

namespace fusion {

/// One attempt at a trial, held by a worker until `until` unless it says that it goes on.
struct Lease {
  protocol::Held what;
  std::string worker;    ///< name, the same over reconnects
  SteadyTime until;
  bool named = false;    ///< the worker has named it since it was granted
  int missed = 0;        ///< heartbeats in a row that did not name it
  std::uint64_t order = 0;  ///< of grants: a worker trains what it was granted first
  bool doomed = false;   ///< the trial ended elsewhere or was cancelled: it only fills a slot of the worker
};

/// Who holds which attempt until when. Pure: no sockets, no store; time comes from the clock. One thread.
class LeaseTable {
 public:
  /// Leases last `length` from when they are granted or extended. The clock must outlive the table.
  LeaseTable(const Clock& clock, std::chrono::milliseconds length) : clock_(&clock), length_(length) {}

  /// Begins a lease. `named`: the worker itself told that it holds this (it came back with it).
  void grant(protocol::Held what, const std::string& worker, bool named = false);
  /// The worker goes on with it. False (nothing done) if it is not this worker's.
  bool extend(protocol::Held what, const std::string& worker);
  /// Takes the lease out; nullopt if it is not this worker's.
  std::optional<Lease> release(protocol::Held what, const std::string& worker);
  /// Puts back what was released: lasts a whole length from now.
  void restore(Lease lease);
  /// Its trial is over for the daemon; true if it was not doomed before.
  bool doom(protocol::Held what);

  const Lease* find(protocol::Held what) const;
  std::vector<protocol::Held> of_worker(const std::string& worker) const;  ///< ordered
  std::size_t count(const std::string& worker) const;
  /// The `count` leases of the worker that were granted first.
  std::vector<protocol::Held> oldest(const std::string& worker, std::size_t count) const;
  std::vector<Lease> of_trial(TrialId trial) const;
  std::size_t size() const { return leases_.size(); }

  /// Takes out and returns what a heartbeat that names `named` shows to be lost: leases of the worker that it has named before
  /// and does not name now. One that it never named may still be on its way to it: that is lost when missed twice.
  std::vector<Lease> take_unnamed(const std::string& worker, std::span<const protocol::Held> named);
  /// Takes out and returns what has run out by now.
  std::vector<Lease> take_expired();

 private:
  Lease take(std::map<protocol::Held, Lease>::iterator at);

  const Clock* clock_;
  std::chrono::milliseconds length_;
  std::map<protocol::Held, Lease> leases_;
  std::uint64_t granted_ = 0;
  std::unordered_map<std::string, std::set<protocol::Held>> by_worker_;
};

}  // namespace fusion
