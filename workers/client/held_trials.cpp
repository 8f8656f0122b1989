#include "workers/client/held_trials.h"

#include <algorithm>
#include <set>

namespace fusion {

using protocol::Held;

std::size_t HeldTrials::add(protocol::Pack pack) {
  const auto header = std::make_shared<const protocol::PackHeader>(pack);
  const std::vector<Held> known = held();
  std::set<Held> seen(known.begin(), known.end());
  const std::size_t before = waiting_.size();
  for (TrialJob& job : pack.trials) {
    if (seen.insert({job.trial, job.attempt}).second) waiting_.push_back({header, std::move(job)});
  }
  return waiting_.size() - before;
}

std::shared_ptr<const protocol::PackHeader> HeldTrials::next_header() const {
  return waiting_.empty() ? nullptr : waiting_.front().header;
}

std::vector<SessionTrial> HeldTrials::begin(const protocol::PackHeader& header, std::size_t count) {
  std::vector<SessionTrial> begun;
  while (begun.size() < count && !waiting_.empty()) {
    Waiting& next = waiting_.front();
    if (next.header.get() != &header && *next.header != header) break;
    const InTraining& started = training_.emplace_back(InTraining{next.held(), {}, {}, "", "", false});
    begun.push_back({std::move(next.job), started.cancel.get_token(), started.prune.get_token()});
    waiting_.pop_front();
  }
  return begun;
}

InTraining* HeldTrials::find(const Held& what) {
  const auto found = std::ranges::find(training_, what, &InTraining::what);
  return found == training_.end() ? nullptr : &*found;
}

const InTraining* HeldTrials::find_training(const Held& what) const {
  const auto found = std::ranges::find(training_, what, &InTraining::what);
  return found == training_.end() ? nullptr : &*found;
}

bool HeldTrials::add_epoch(const protocol::Epoch& epoch) {
  const Held what{epoch.trial, epoch.attempt};
  if (find(what) == nullptr) return false;
  reports_.emplace_back(what, epoch);
  return true;
}

void HeldTrials::finish(TrialOutcome outcome) {
  const Held what{outcome.trial, outcome.attempt};
  take_waiting(what);
  std::erase_if(training_, [&](const InTraining& trial) { return trial.what == what; });
  reports_.emplace_back(what, protocol::Result{std::move(outcome)});
  ++results_;
}

bool HeldTrials::cancel(const Held& what, const std::string& why) {
  InTraining* trial = find(what);
  if (trial == nullptr) return false;
  trial->cancelled = why;
  trial->cancel.request_stop();
  return true;
}

bool HeldTrials::prune(const Held& what, const std::string& why) {
  InTraining* trial = find(what);
  if (trial == nullptr) return false;
  trial->pruned = why;
  trial->prune.request_stop();
  return true;
}

void HeldTrials::stop_training() {
  for (InTraining& trial : training_) {
    trial.giving_back = true;
    trial.cancel.request_stop();
  }
}

void HeldTrials::drop_training(const Held& what) {
  if (std::erase_if(training_, [&](const InTraining& trial) { return trial.what == what; }) > 0) drop_reports(what);
}

std::vector<Held> HeldTrials::take_waiting() {
  std::vector<Held> taken;
  for (const Waiting& trial : waiting_) taken.push_back(trial.held());
  waiting_.clear();
  return taken;
}

bool HeldTrials::take_waiting(const Held& what) {
  return std::erase_if(waiting_, [&](const Waiting& trial) { return trial.held() == what; }) > 0;
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
  for (const InTraining& trial : training_) all.push_back(trial.what);
  for (const Waiting& trial : waiting_) all.push_back(trial.held());
  return all;
}

std::vector<protocol::Message> HeldTrials::unacknowledged() const {
  std::vector<protocol::Message> messages;
  for (const auto& [held, report] : reports_) messages.push_back(report);
  return messages;
}

}  // namespace fusion
