#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "space/trial.h"
#include "workers/protocol/messages.h"

namespace fusion {

/// A trial on its way to the trainer.
struct Assignment {
  std::shared_ptr<const protocol::Pack> pack;  ///< study, data and options it shares with its neighbours
  TrialJob job;
  std::stop_token stop;
  protocol::Held held() const { return {job.trial, job.attempt}; }
};

/// What a worker holds: trials that wait, in the order they came; the one in training; and what is finished or reported but not
/// yet acknowledged, in the order it happened. What is acknowledged is forgotten.
///
/// Values only, no threads, no sockets: the client's I/O thread owns it. Bounded by what the daemon leases to the worker.
class HeldTrials {
 public:
  /// Queues a pack's trials, except those that are held already (a pack may come twice around a reconnect). Returns how many.
  std::size_t add(protocol::Pack pack);

  /// Takes the next waiting trial into training; none if nothing waits or something is in training.
  std::optional<Assignment> begin_next();
  const std::optional<protocol::Held>& training() const { return training_; }
  std::size_t waiting() const { return waiting_.size(); }

  /// Keeps an epoch of the trial in training until it is acknowledged. False if another trial, or none, is in training.
  bool add_epoch(const protocol::Epoch& epoch);
  /// Keeps a result until it is acknowledged; the trial waits or trains no more.
  void finish(TrialOutcome outcome);

  /// Tells the trial in training to stop at its next batch.
  void stop_training();
  /// The trial in training came back untrained: forgets it and its epochs.
  void drop_training();
  /// Forgets everything that waits and says what it was.
  std::vector<protocol::Held> take_waiting();

  /// Takes a trial out of those that wait. False if it does not wait.
  bool take_waiting(const protocol::Held& what);

  /// Forgets what is named: an epoch, or a result with all its epochs. False if there was nothing of the kind.
  bool acknowledge(const protocol::Ack& ack);

  /// Everything that waits, trains or has a result that is not acknowledged.
  std::vector<protocol::Held> held() const;
  /// Epochs and results to send again after a reconnect, in the order they happened.
  std::vector<protocol::Message> unacknowledged() const;
  std::size_t unacknowledged_results() const { return results_; }
  bool empty() const { return waiting_.empty() && !training_ && results_ == 0; }

 private:
  struct Waiting {
    std::shared_ptr<const protocol::Pack> pack;
    TrialJob job;
  };
  void drop_reports(const protocol::Held& what);

  std::deque<Waiting> waiting_;
  std::optional<protocol::Held> training_;
  std::stop_source stop_{std::nostopstate};
  std::vector<std::pair<protocol::Held, protocol::Message>> reports_;  // Epoch and Result only
  std::size_t results_ = 0;
};

}  // namespace fusion
