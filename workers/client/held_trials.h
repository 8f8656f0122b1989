#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "space/trial.h"
#include "workers/client/pack_session.h"
#include "workers/protocol/messages.h"

namespace fusion {

/// A trial in training, as the I/O thread sees it.
struct InTraining {
  protocol::Held what;
  std::stop_source cancel, prune;
  std::string cancelled;     ///< why the daemon wants it stopped; else empty
  std::string pruned;        ///< why the daemon wants it ended early; else empty
  bool giving_back = false;  ///< stopped because the worker leaves
};

/// What a worker holds: trials that wait, in the order they came; the set in training; and what is finished or reported but not
/// yet acknowledged, in the order it happened. What is acknowledged is forgotten.
///
/// Values only, no threads, no sockets: the client's I/O thread owns it. Bounded by what the daemon leases to the worker.
class HeldTrials {
 public:
  /// Queues a pack's trials, except those that are held already (a pack may come twice around a reconnect). Returns how many.
  std::size_t add(protocol::Pack pack);

  /// What the trial that waits in front shares with its neighbours; null if nothing waits.
  std::shared_ptr<const protocol::PackHeader> next_header() const;
  /// Takes trials with this header into training: from the front, at most `count`, up to the first with another header. So no
  /// study passes another one here.
  std::vector<SessionTrial> begin(const protocol::PackHeader& header, std::size_t count);
  std::size_t training() const { return training_.size(); }
  std::size_t waiting() const { return waiting_.size(); }
  /// Null if that trial is not in training.
  const InTraining* find_training(const protocol::Held& what) const;

  /// Keeps an epoch of a trial in training until it is acknowledged. False if that trial is not in training.
  bool add_epoch(const protocol::Epoch& epoch);
  /// Keeps a result until it is acknowledged; the trial waits or trains no more.
  void finish(TrialOutcome outcome);

  /// Tells a trial in training to stop, because the daemon does not want it. False if it is not in training.
  bool cancel(const protocol::Held& what, const std::string& why);
  /// Tells a trial in training to end early. False if it is not in training.
  bool prune(const protocol::Held& what, const std::string& why);
  /// Tells everything in training to stop, to be given back.
  void stop_training();
  /// A trial in training came back untrained: forgets it and its epochs.
  void drop_training(const protocol::Held& what);
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
  bool empty() const { return waiting_.empty() && training_.empty() && results_ == 0; }

 private:
  struct Waiting {
    std::shared_ptr<const protocol::PackHeader> header;
    TrialJob job;
    protocol::Held held() const { return {job.trial, job.attempt}; }
  };
  InTraining* find(const protocol::Held& what);
  void drop_reports(const protocol::Held& what);

  std::deque<Waiting> waiting_;
  std::vector<InTraining> training_;
  std::vector<std::pair<protocol::Held, protocol::Message>> reports_;  // Epoch and Result only
  std::size_t results_ = 0;
};

}  // namespace fusion
