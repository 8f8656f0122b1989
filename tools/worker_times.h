#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

namespace fusion {

/// How a worker's training thread spends its time: at work on a pack, or waiting between two packs. For the log, and for whoever wants to
/// know whether the daemon keeps its workers busy. One thread.
class WorkerTimes {
 public:
  using Clock = std::chrono::steady_clock;

  /// A pack is in training as long as this lives.
  class Pack {
   public:
    explicit Pack(WorkerTimes& times) : times_(times) { times_.pack_begun(Clock::now()); }
    ~Pack() { times_.pack_ended(Clock::now()); }
    Pack(const Pack&) = delete;
    Pack& operator=(const Pack&) = delete;

   private:
    WorkerTimes& times_;
  };
  void pack_begun(Clock::time_point at);
  void pack_ended(Clock::time_point at);

  std::size_t packs() const { return packs_; }
  double busy_s() const { return busy_s_; }
  /// Between the first pack's begin and the last one's end; 0 before.
  double span_s() const { return span_s_; }
  /// The share of its gaps that were shorter is `share`, in [0, 1]; 0 without gaps. 1 gives the longest.
  double gap_s(double share) const;
  /// busy_s / span_s; 1 before the first pack ended.
  double busy_share() const { return span_s_ > 0 ? busy_s_ / span_s_ : 1; }

 private:
  std::size_t packs_ = 0;
  double busy_s_ = 0, span_s_ = 0;
  std::vector<float> gaps_s_;
  Clock::time_point first_{}, begun_{}, ended_{};
};

}  // namespace fusion
