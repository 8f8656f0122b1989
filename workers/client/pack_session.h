#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "space/trial.h"
#include "workers/protocol/messages.h"

namespace fusion {

/// A trial in the trainer's hands, and the two ways to end it early. A token is triggered at most once and from another thread;
/// look at both once per batch.
struct SessionTrial {
  TrialJob job;
  std::stop_token cancel;  ///< end it cancelled
  std::stop_token prune;   ///< end it pruned, with the score of the epochs that were finished
  protocol::Held held() const { return {job.trial, job.attempt}; }
};

/// One pack in training, as the trainer sees it: what the trials share, those it begins with, more of the same kind when there is
/// room, and where reports and ends go.
///
/// Belongs to the training thread, and lives as long as the TrainFunction runs. Every trial that was given out ends once: what
/// the trainer says of it after that is dropped, and what it never ended is ended for it.
class PackSession {
 public:
  /// What the functions below do with the rest of the worker. All must be there; they must not throw.
  struct Hooks {
    std::function<std::vector<SessionTrial>(std::size_t room)> more;
    std::function<void(const protocol::Held&, const EpochReport&)> on_epoch;
    std::function<void(TrialOutcome)> on_end;
  };
  /// `trials` have this header.
  PackSession(std::shared_ptr<const protocol::PackHeader> header, std::vector<SessionTrial> trials, Hooks hooks);

  const protocol::PackHeader& header() const { return *header_; }
  /// Those to begin with; at least one.
  const std::vector<SessionTrial>& trials() const { return trials_; }
  /// At most `room` more trials with the same header, of what the worker holds already; none if nothing waits, if the next one is
  /// of another study, or if the worker is leaving. Costs a word to the I/O thread and back, never a way to the daemon.
  std::vector<SessionTrial> more(std::size_t room);
  /// After every epoch of every trial.
  void on_epoch(const TrialJob& job, const EpochReport& report);
  /// Once for every trial, as soon as it has ended: the result leaves at once.
  void on_end(TrialOutcome outcome);

  /// Ends everything that has not ended. For the caller of the TrainFunction.
  void end_rest(Outcome outcome, const std::string& error);
  std::size_t ended() const { return ended_; }

 private:
  std::vector<SessionTrial> note(std::vector<SessionTrial> trials);

  std::set<protocol::Held> open_;  // first: the others are made with it
  std::size_t ended_ = 0;
  std::shared_ptr<const protocol::PackHeader> header_;
  std::vector<SessionTrial> trials_;
  Hooks hooks_;
};

/// Trains a pack: everything in `session.trials()`, and what `session.more` gives. Called on the thread of `WorkerClient::run`, one pack
/// at a time. What it throws is the end of every trial that has not ended: failed with the exception's text, or oom for std::bad_alloc.
using TrainFunction = std::function<void(PackSession& session)>;

}  // namespace fusion
