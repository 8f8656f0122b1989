#pragma once

#include <atomic>
#include <chrono>
#include <thread>

namespace fusion {

/// The store's thread before people's scans: while it works on a group, queries that give way do not run. A low priority is not enough where
/// processors are short, since a sync also needs the kernel's own threads and the disk's interrupts: two scans at any priority make it several
/// times as long. Atomic throughout: any thread may look; Hold is the store thread's.
class RightOfWay {
 public:
  /// Taken for as long as this lives. Null: nobody is asked to give way.
  class Hold {
   public:
    explicit Hold(RightOfWay* way) : way_(way) {
      if (way_ != nullptr) way_->taken_ = true;
    }
    ~Hold() {
      if (way_ != nullptr) way_->taken_ = false;
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    RightOfWay* way_;
  };

  bool taken() const { return taken_; }

 private:
  std::atomic<bool> taken_ = false;
};

/// How a query gives way: it looks every now and then, and waits while the way is taken, at most for kShare of the time since it began. So it
/// goes on beside a store that never rests, ten times as slowly at the worst, and beside one that hangs in a sync.
class GivingWay {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::microseconds kNap{300};
  static constexpr int kShare = 10;  ///< it runs at least one part of so many

  explicit GivingWay(const RightOfWay* way) : way_(way), began_(std::chrono::steady_clock::now()) {}

  /// Waits where it must until then at the latest; returns the time it is now.
  Time look(Time end) {
    Time now = std::chrono::steady_clock::now();
    while (way_ != nullptr && way_->taken() && now < end && waited_ * kShare <= (now - began_) * (kShare - 1)) {
      std::this_thread::sleep_for(kNap);
      const Time woken = std::chrono::steady_clock::now();
      waited_ += woken - now;
      now = woken;
    }
    return now;
  }
  std::chrono::nanoseconds waited() const { return waited_; }

 private:
  const RightOfWay* way_;
  Time began_;
  std::chrono::nanoseconds waited_{0};
};

}  // namespace fusion
