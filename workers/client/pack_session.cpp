#include "workers/client/pack_session.h"

#include <utility>

namespace fusion {

using protocol::Held;

PackSession::PackSession(std::shared_ptr<const protocol::PackHeader> header, std::vector<SessionTrial> trials, Hooks hooks)
    : header_(std::move(header)), trials_(note(std::move(trials))), hooks_(std::move(hooks)) {}

std::vector<SessionTrial> PackSession::note(std::vector<SessionTrial> trials) {
  for (const SessionTrial& trial : trials) open_.insert(trial.held());
  return trials;
}

std::vector<SessionTrial> PackSession::more(std::size_t room) {
  if (room == 0) return {};
  return note(hooks_.more(room));
}

void PackSession::on_epoch(const TrialJob& job, const EpochReport& report) {
  const Held what{job.trial, job.attempt};
  if (open_.contains(what)) hooks_.on_epoch(what, report);
}

void PackSession::on_end(TrialOutcome outcome) {
  if (open_.erase(Held{outcome.trial, outcome.attempt}) == 0) return;
  ++ended_;
  hooks_.on_end(std::move(outcome));
}

void PackSession::end_rest(Outcome outcome, const std::string& error) {
  while (!open_.empty()) {
    TrialOutcome end;
    end.trial = open_.begin()->trial;
    end.attempt = open_.begin()->attempt;
    end.outcome = outcome;
    end.error = error;
    on_end(std::move(end));
  }
}

}  // namespace fusion
