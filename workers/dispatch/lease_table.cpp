#include "workers/dispatch/lease_table.h"

#include <algorithm>
#include <utility>

namespace fusion {

using protocol::Held;

void LeaseTable::grant(Held what, const std::string& worker, bool named) {
  Lease lease;
  lease.what = what;
  lease.worker = worker;
  lease.named = named;
  lease.order = ++granted_;
  restore(std::move(lease));
}

void LeaseTable::restore(Lease lease) {
  if (const auto old = leases_.find(lease.what); old != leases_.end()) take(old);
  lease.until = clock_->steady() + length_;
  lease.missed = 0;
  by_worker_[lease.worker].insert(lease.what);
  const Held what = lease.what;
  leases_.emplace(what, std::move(lease));
}

bool LeaseTable::extend(Held what, const std::string& worker) {
  const auto found = leases_.find(what);
  if (found == leases_.end() || found->second.worker != worker) return false;
  found->second.until = clock_->steady() + length_;
  found->second.named = true;
  found->second.missed = 0;
  return true;
}

std::optional<Lease> LeaseTable::release(Held what, const std::string& worker) {
  const auto found = leases_.find(what);
  if (found == leases_.end() || found->second.worker != worker) return std::nullopt;
  return take(found);
}

bool LeaseTable::doom(Held what) {
  const auto found = leases_.find(what);
  if (found == leases_.end()) return false;
  return !std::exchange(found->second.doomed, true);
}

const Lease* LeaseTable::find(Held what) const {
  const auto found = leases_.find(what);
  return found == leases_.end() ? nullptr : &found->second;
}

std::vector<Held> LeaseTable::of_worker(const std::string& worker) const {
  const auto found = by_worker_.find(worker);
  if (found == by_worker_.end()) return {};
  return {found->second.begin(), found->second.end()};
}

std::size_t LeaseTable::count(const std::string& worker) const {
  const auto found = by_worker_.find(worker);
  return found == by_worker_.end() ? 0 : found->second.size();
}

std::vector<Held> LeaseTable::oldest(const std::string& worker, std::size_t count) const {
  std::vector<Held> held = of_worker(worker);
  std::ranges::sort(held, {}, [this](const Held& what) { return leases_.at(what).order; });
  if (held.size() > count) held.resize(count);
  return held;
}

std::vector<Lease> LeaseTable::of_trial(TrialId trial) const {
  std::vector<Lease> leases;
  for (auto at = leases_.lower_bound(Held{trial, 0}); at != leases_.end() && at->first.trial == trial; ++at) {
    leases.push_back(at->second);
  }
  return leases;
}

std::vector<Lease> LeaseTable::take_unnamed(const std::string& worker, std::span<const Held> named) {
  const std::set<Held> known(named.begin(), named.end());
  std::vector<Lease> lost;
  for (const Held& what : of_worker(worker)) {
    if (known.contains(what)) continue;
    const auto found = leases_.find(what);
    if (found->second.named || ++found->second.missed >= 2) lost.push_back(take(found));
  }
  return lost;
}

std::vector<Lease> LeaseTable::take_expired() {
  const SteadyTime now = clock_->steady();
  std::vector<Lease> expired;
  for (auto at = leases_.begin(); at != leases_.end();) {
    const auto here = at++;
    if (here->second.until <= now) expired.push_back(take(here));
  }
  return expired;
}

Lease LeaseTable::take(std::map<Held, Lease>::iterator at) {
  Lease lease = std::move(at->second);
  leases_.erase(at);
  const auto worker = by_worker_.find(lease.worker);
  worker->second.erase(lease.what);
  if (worker->second.empty()) by_worker_.erase(worker);
  return lease;
}

}  // namespace fusion
