#include "workers/client/held_retrainings.h"

#include <algorithm>

#include "workers/client/retraining_session.h"

namespace fusion {

using protocol::HeldRetraining;

namespace {

HeldRetraining held_of(const RetrainingJob& job) { return {job.retraining, job.attempt}; }

bool is_result(const protocol::Message& report) { return std::holds_alternative<protocol::RetrainingResult>(report); }

}  // namespace

void refuse_to_retrain(RetrainingSession& session) {
  session.on_end(Outcome::failed, "this worker trains trials only and cannot retrain; start one that can, or leave retrainings to it");
}

bool HeldRetrainings::add(RetrainingJob job) {
  const std::vector<HeldRetraining> known = held();
  if (std::ranges::find(known, held_of(job)) != known.end()) return false;
  waiting_.push_back(std::move(job));
  return true;
}

RetrainingJob HeldRetrainings::begin() {
  RetrainingJob job = std::move(waiting_.front());
  waiting_.pop_front();
  at_work_.emplace();
  at_work_->what = held_of(job);
  return job;
}

bool HeldRetrainings::add_epoch(const protocol::RetrainingEpochReport& report) {
  if (!at_work_ || at_work_->what != report.what) return false;
  reports_.emplace_back(report.what, report);
  return true;
}

void HeldRetrainings::finish(RetrainingOutcome outcome) {
  const HeldRetraining what{outcome.retraining, outcome.attempt};
  drop(what);
  reports_.emplace_back(what, protocol::RetrainingResult{std::move(outcome)});
}

void HeldRetrainings::drop(const HeldRetraining& what) {
  take_waiting(what);
  if (at_work_ && at_work_->what == what) at_work_.reset();
}

bool HeldRetrainings::take_waiting(const HeldRetraining& what) {
  return std::erase_if(waiting_, [&](const RetrainingJob& job) { return held_of(job) == what; }) > 0;
}

std::vector<HeldRetraining> HeldRetrainings::take_waiting() {
  std::vector<HeldRetraining> taken;
  for (const RetrainingJob& job : waiting_) taken.push_back(held_of(job));
  waiting_.clear();
  return taken;
}

bool HeldRetrainings::cancel(const HeldRetraining& what, const std::string& why) {
  if (!at_work_ || at_work_->what != what) return false;
  at_work_->cancelled = why;
  at_work_->cancel.request_stop();
  abandon();
  return true;
}

bool HeldRetrainings::hand_back(const HeldRetraining& what) {
  if (!at_work_ || at_work_->what != what) return false;
  hand_back(false);
  return true;
}

void HeldRetrainings::hand_back(bool now, const std::string& why) {
  if (!at_work_) return;
  if (!at_work_->giving_back) at_work_->why = why;
  at_work_->giving_back = true;
  at_work_->hand_back.request_stop();
  if (now) at_work_->cancel.request_stop();
}

void HeldRetrainings::abandon() {
  if (at_work_) at_work_->abandon.request_stop();
}

bool HeldRetrainings::acknowledge(const protocol::RetrainingAck& ack) {
  return std::erase_if(reports_, [&](const auto& report) {
           if (report.first != ack.held) return false;
           const auto* epoch = std::get_if<protocol::RetrainingEpochReport>(&report.second);
           return ack.what == "epoch" ? epoch != nullptr && epoch->epoch.epoch == ack.epoch : true;
         }) > 0;
}

std::vector<HeldRetraining> HeldRetrainings::held() const {
  std::vector<HeldRetraining> all;
  for (const auto& [what, report] : reports_) {
    if (is_result(report)) all.push_back(what);
  }
  if (at_work_) all.push_back(at_work_->what);
  for (const RetrainingJob& job : waiting_) all.push_back(held_of(job));
  return all;
}

std::vector<protocol::Message> HeldRetrainings::unacknowledged() const {
  std::vector<protocol::Message> messages;
  for (const auto& [what, report] : reports_) messages.push_back(report);
  return messages;
}

}  // namespace fusion
