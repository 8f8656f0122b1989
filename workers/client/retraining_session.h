#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <utility>

#include "space/retraining.h"

namespace fusion {

/// One retraining at work, as the trainer sees it: the job, the two ways to end it early, and where reports and its end go.
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
  RetrainingSession(RetrainingJob job, std::stop_token cancel, std::stop_token hand_back, Hooks hooks)
      : job_(std::move(job)), cancel_(std::move(cancel)), hand_back_(std::move(hand_back)), hooks_(std::move(hooks)) {}

  const RetrainingJob& job() const { return job_; }
  /// End it within a batch, outcome cancelled. What is on disk stays: the daemon may hand the retraining to somebody else.
  const std::stop_token& cancel() const { return cancel_; }
  /// End it once the epoch at hand is in a checkpoint, outcome preempted; at once if none is at hand. Also triggered beside `cancel`.
  const std::stop_token& hand_back() const { return hand_back_; }

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
  std::stop_token cancel_, hand_back_;
  Hooks hooks_;
  bool ended_ = false;
};

/// Retrains `session.job()`. Called on the thread of `WorkerClient::run`, never beside a TrainFunction. What it throws is its end: failed
/// with the exception's text, or oom for std::bad_alloc.
using RetrainFunction = std::function<void(RetrainingSession& session)>;

/// Ends every job failed: of a worker that trains trials only.
void refuse_to_retrain(RetrainingSession& session);

}  // namespace fusion
