#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <utility>

#include "space/retraining.h"

namespace fusion {

/// One retraining at work, as the trainer sees it: the job, the ways to end it early, and where reports and its end go.
///
/// Belongs to the training thread, and lives as long as the RetrainFunction runs. It ends once: what the trainer says after that is
/// dropped.
///
/// What makes a kill cost no more than the epoch at hand: after each epoch the trainer writes its checkpoint (in one step) and reports the
/// epoch. An attempt that finds a checkpoint reports its last epoch again, under its own number, and goes on behind it: the report may not
/// have reached the daemon. Epochs are stored per attempt, so that a repeated one replaces nothing.
class RetrainingSession {
 public:
  /// What the functions below do with the rest of the worker. All must be there; they must not throw.
  struct Hooks {
    std::function<void(const RetrainingEpoch&)> on_epoch;
    std::function<void(const RetrainingProgress&)> on_progress;
    std::function<void(RetrainingOutcome)> on_end;
  };
  /// The ways to end it early, see below.
  struct Stops {
    std::stop_token cancel, hand_back, abandon;
  };
  RetrainingSession(RetrainingJob job, Stops stops, Hooks hooks) : job_(std::move(job)), stops_(std::move(stops)), hooks_(std::move(hooks)) {}

  const RetrainingJob& job() const { return job_; }
  /// End it within a batch, outcome cancelled. What is on disk stays: the daemon may hand the retraining to somebody else.
  const std::stop_token& cancel() const { return stops_.cancel; }
  /// End it once the epoch at hand is in a checkpoint, outcome preempted; at once if none is at hand. Also triggered beside `cancel`.
  const std::stop_token& hand_back() const { return stops_.hand_back; }
  /// What was made is not wanted any more, or there is no time to send it: only then stop what is on its way to the daemon. Triggered with
  /// `cancel`, or some seconds later.
  const std::stop_token& abandon() const { return stops_.abandon; }

  /// After every epoch, its checkpoint being on disk. Kept until the daemon acknowledged it.
  void on_epoch(const RetrainingEpoch& epoch) {
    if (!ended_) hooks_.on_epoch(epoch);
  }
  /// As often as one likes; few of them leave, and none is kept.
  void on_progress(const RetrainingProgress& progress) {
    if (!ended_) hooks_.on_progress(progress);
  }
  /// Once. `retraining` and `attempt` are filled in here.
  void on_end(RetrainingOutcome outcome) {
    if (std::exchange(ended_, true)) return;
    outcome.retraining = job_.retraining;
    outcome.attempt = job_.attempt;
    hooks_.on_end(std::move(outcome));
  }
  /// The same without a score.
  void on_end(Outcome how, std::string error) {
    RetrainingOutcome outcome;
    outcome.outcome = how;
    outcome.error = std::move(error);
    on_end(std::move(outcome));
  }
  bool ended() const { return ended_; }

 private:
  RetrainingJob job_;
  Stops stops_;
  Hooks hooks_;
  bool ended_ = false;
};

/// Retrains `session.job()`. Called on the thread of `WorkerClient::run`, never beside a TrainFunction. What it throws is its end: failed
/// with the exception's text, or oom for std::bad_alloc.
using RetrainFunction = std::function<void(RetrainingSession& session)>;

/// Ends every job failed: of a worker that trains trials only.
void refuse_to_retrain(RetrainingSession& session);

}  // namespace fusion
