#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "workers/client/wall_time.h"
#include "workers/protocol/messages.h"

namespace fusion {

/// Thrown by a TrainFunction or RetrainFunction: the data cannot be read here, though another worker may. Nothing has failed: what was held
/// of it goes back, and nothing that needs it is taken for a while.
class UnreadableData : public Error {
  using Error::Error;
};

/// Thrown likewise: the device is gone for this process. What is held goes back, and the worker leaves.
class DeviceLost : public Error {
  using Error::Error;
};

/// What a worker says of itself beside what it holds (protocol::Condition): the time it has, its devices, and data that it cannot read now.
///
/// Values only: the client's I/O thread owns it.
class WorkerCondition {
 public:
  WorkerCondition(const WallTime::Options& wall, int pack, int slots, SteadyTime now) : wall_(wall, now), pack_(pack), slots_(slots) {}

  WallTime& wall() { return wall_; }
  const WallTime& wall() const { return wall_; }

  /// What was read of the devices last. One with a problem: the worker takes nothing until it has none.
  void put(std::vector<protocol::Device> devices) { devices_ = std::move(devices); }
  /// Trials at once and to hold, where these follow the memory that is free; told from now on.
  void put_size(int pack, int slots) { pack_ = pack, slots_ = slots, size_changes_ = true; }
  int pack() const { return pack_; }
  int slots() const { return slots_; }
  /// One was given back for want of time: no other is taken, for the time only gets shorter.
  void take_no_more_retrainings() { retrains_ = false; }
  bool takes_retrainings(SteadyTime now) const;
  /// Data that cannot be read: not asked for again for 15 s, then twice as long each time up to 10 minutes.
  void note_unreadable(const std::string& dataset_digest, const std::string& why, SteadyTime now);
  void note_readable(const std::string& dataset_digest) { unreadable_.erase(dataset_digest); }
  bool is_unreadable(const std::string& dataset_digest, SteadyTime now) const;

  /// The sentence of the first device with a problem; empty if there is none.
  const std::string& problem() const;
  /// Most trials it may hold now, 0 with a problem; none where nothing limits them but what the daemon sends.
  std::optional<std::size_t> most(SteadyTime now) const;
  protocol::Condition said(SteadyTime now) const;

 private:
  struct Unreadable {
    std::string why;
    SteadyTime until;
    std::chrono::seconds pause{15};
  };
  WallTime wall_;
  int pack_, slots_;
  bool size_changes_ = false, retrains_ = true;
  std::vector<protocol::Device> devices_;
  std::map<std::string, Unreadable> unreadable_;  // by dataset digest; kept when its time is over, for the next pause
};

}  // namespace fusion
