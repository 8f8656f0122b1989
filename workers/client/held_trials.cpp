#include "workers/client/held_trials.h"

#include <algorithm>
#include <set>

namespace fusion {

using protocol::Held;

std::size_t HeldTrials::add(protocol::Pack pack) {
  const auto shared = std::make_shared<const protocol::Pack>(std::move(pack));
  const std::vector<Held> known = held();
  std::set<Held> seen(known.begin(), known.end());
  const std::size_t before = waiting_.size();
  for (const TrialJob& job : shared->trials) {
    if (seen.insert({job.trial, job.attempt}).second) waiting_.push_back({shared, job});
  }
  return waiting_.size() - before;
}

std::optional<Assignment> HeldTrials::begin_next() {
  if (training_ || waiting_.empty()) return std::nullopt;
  Waiting next = std::move(waiting_.front());
  waiting_.pop_front();
  training_ = Held{next.job.trial, next.job.attempt};
  stop_ = std::stop_source();
  return Assignment{std::move(next.pack), std::move(next.job), stop_.get_token()};
}

bool HeldTrials::add_epoch(const protocol::Epoch& epoch) {
  const Held what{epoch.trial, epoch.attempt};
  if (training_ != what) return false;
  reports_.emplace_back(what, epoch);
  return true;
}

void HeldTrials::finish(TrialOutcome outcome) {
  const Held what{outcome.trial, outcome.attempt};
  take_waiting(what);
  if (training_ == what) training_.reset();
  reports_.emplace_back(what, protocol::Result{std::move(outcome)});
  ++results_;
}

void HeldTrials::stop_training() {
  if (training_) stop_.request_stop();
}

void HeldTrials::drop_training() {
  if (!training_) return;
  drop_reports(*training_);
  training_.reset();
}

std::vector<Held> HeldTrials::take_waiting() {
  std::vector<Held> taken;
  for (const Waiting& trial : waiting_) taken.push_back({trial.job.trial, trial.job.attempt});
  waiting_.clear();
  return taken;
}

bool HeldTrials::take_waiting(const Held& what) {
  return std::erase_if(waiting_, [&](const Waiting& w) { return Held{w.job.trial, w.job.attempt} == what; }) > 0;
}

bool HeldTrials::acknowledge(const protocol::Ack& ack) {
  const Held what{ack.trial, ack.attempt};
  const auto is_named = [&](const auto& report) {
    if (report.first != what) return false;
    const auto* epoch = std::get_if<protocol::Epoch>(&report.second);
    return ack.what == "epoch" ? epoch != nullptr && epoch->report.epoch == ack.epoch : epoch == nullptr;
  };
  if (std::none_of(reports_.begin(), reports_.end(), is_named)) return false;
  if (ack.what == "epoch") {
    std::erase_if(reports_, is_named);
  } else {
    drop_reports(what);
  }
  return true;
}

void HeldTrials::drop_reports(const Held& what) {
  for (const auto& [held, report] : reports_) {
    if (held == what && std::holds_alternative<protocol::Result>(report)) --results_;
  }
  std::erase_if(reports_, [&](const auto& report) { return report.first == what; });
}

std::vector<Held> HeldTrials::held() const {
  std::vector<Held> all;
  for (const auto& [held, report] : reports_) {
    if (std::holds_alternative<protocol::Result>(report)) all.push_back(held);
  }
  if (training_) all.push_back(*training_);
  for (const Waiting& trial : waiting_) all.push_back({trial.job.trial, trial.job.attempt});
  return all;
}

std::vector<protocol::Message> HeldTrials::unacknowledged() const {
  std::vector<protocol::Message> messages;
  for (const auto& [held, report] : reports_) messages.push_back(report);
  return messages;
}

}  // namespace fusion
