#include "workers/client/worker_condition.h"

#include <algorithm>

namespace fusion {

namespace {

constexpr std::chrono::seconds kLongestPause{600};

}  // namespace

void WorkerCondition::note_unreadable(const std::string& dataset_digest, const std::string& why, SteadyTime now) {
  const auto [at, fresh] = unreadable_.try_emplace(dataset_digest);
  if (!fresh) at->second.pause = std::min(kLongestPause, 2 * at->second.pause);
  at->second.why = why;
  at->second.until = now + at->second.pause;
}

bool WorkerCondition::is_unreadable(const std::string& dataset_digest, SteadyTime now) const {
  const auto found = unreadable_.find(dataset_digest);
  return found != unreadable_.end() && now < found->second.until;
}

const std::string& WorkerCondition::problem() const {
  static const std::string kNone;
  const auto found = std::ranges::find_if(devices_, [](const protocol::Device& device) { return !device.problem.empty(); });
  return found == devices_.end() ? kNone : found->problem;
}

std::optional<std::size_t> WorkerCondition::most(SteadyTime now) const {
  if (!problem().empty()) return 0;
  const auto fits = wall_.fits(now, pack_, slots_);
  return fits ? std::optional(static_cast<std::size_t>(*fits)) : std::nullopt;
}

bool WorkerCondition::takes_retrainings(SteadyTime now) const {
  const auto longest = wall_.longest_epoch(now);
  return retrains_ && most(now) != std::size_t{0} && (!longest || longest->count() > 0);
}

protocol::Condition WorkerCondition::said(SteadyTime now) const {
  protocol::Condition said;
  if (const auto left = wall_.left(now)) said.time_left_s = left->count();
  if (const auto trial = wall_.trial()) said.trial_s = trial->count();
  said.fits = wall_.fits(now, pack_, slots_);
  said.problem = problem();
  if (!said.problem.empty()) said.fits = 0;
  if (const auto longest = wall_.longest_epoch(now)) said.longest_epoch_s = retrains_ ? longest->count() : 0;
  if (const auto first = wall_.first_epoch()) said.first_epoch_s = first->count();
  if (size_changes_) said.pack = pack_, said.slots = slots_;
  said.devices = devices_;
  for (const auto& [digest, data] : unreadable_) {
    if (now < data.until) said.unreadable.push_back({digest, data.why});
  }
  return said;
}

}  // namespace fusion
