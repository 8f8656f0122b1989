#pragma once

#include <deque>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "space/retraining.h"
#include "workers/protocol/messages.h"

namespace fusion {

/// What a worker holds of retrainings: those that wait (one, but for a lease that crossed something on the way), the one at work, and what
/// is finished or reported but not yet acknowledged, in the order it happened.
///
/// Epochs of a retraining that was given back are kept too: nobody will train them again.
///
/// Values only, no threads, no sockets: the client's I/O thread owns it.
class HeldRetrainings {
 public:
  /// The one at work, as the I/O thread sees it.
  struct AtWork {
    protocol::HeldRetraining what;
    std::stop_source cancel, hand_back, abandon;
    std::string cancelled;   ///< why the daemon wants it stopped; else empty
    bool giving_back = false;  ///< it is to be given back as soon as it has stopped
    std::string why;           ///< the worker itself wants that; else empty
  };

  /// Queues it, unless it is held already (a lease may come twice around a reconnect).
  bool add(RetrainingJob job);
  bool waits() const { return !waiting_.empty(); }
  /// Takes the first that waits to work; there must be one, and nothing at work.
  RetrainingJob begin();
  const AtWork* at_work() const { return at_work_ ? &*at_work_ : nullptr; }

  /// Keeps an epoch of the one at work until it is acknowledged; false if it is not at work.
  bool add_epoch(const protocol::RetrainingEpochReport& report);
  /// Keeps a result until it is acknowledged; it waits or works no more.
  void finish(RetrainingOutcome outcome);
  /// It came back as far as its checkpoint: forgets it, but not its epochs.
  void drop(const protocol::HeldRetraining& what);
  bool take_waiting(const protocol::HeldRetraining& what);
  std::vector<protocol::HeldRetraining> take_waiting();

  /// Tells the one at work to stop. False if `what` is not at work.
  bool cancel(const protocol::HeldRetraining& what, const std::string& why);
  /// Tells it to stop after its epoch, to be given back. False if `what` is not at work.
  bool hand_back(const protocol::HeldRetraining& what);
  /// The same whatever is at work; at once if `now`. `why`: a reason of the worker's own, for the daemon.
  void hand_back(bool now, const std::string& why = "");
  /// What is at work sends nothing any more.
  void abandon();

  bool acknowledge(const protocol::RetrainingAck& ack);
  /// Everything that waits, works or has a result that is not acknowledged.
  std::vector<protocol::HeldRetraining> held() const;
  /// To send again after a reconnect, in the order it happened.
  std::vector<protocol::Message> unacknowledged() const;
  bool empty() const { return waiting_.empty() && !at_work_ && reports_.empty(); }

 private:
  std::deque<RetrainingJob> waiting_;
  std::optional<AtWork> at_work_;
  std::vector<std::pair<protocol::HeldRetraining, protocol::Message>> reports_;  // RetrainingEpochReport and RetrainingResult only
};

}  // namespace fusion
