#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <utility>

namespace fusion {

/// Lets the write-ahead log be emptied although there is always somebody who reads: SQLite begins the log anew only at a moment when
/// nobody reads from it, and with several readers that go on and on there is none. Once the log is too long, the store's thread closes the
/// gate; readers that come wait, those that are inside end their query; the last one calls `drained`, the log is moved into the file, and the
/// gate is opened. All of that takes as long as the longest query inside, and at most kPatience for those who wait: then they go in, and the
/// next try is made when the log has grown by a quarter.
///
/// Atomic throughout: any thread may take a turn; `close` and `open` are the store thread's. Readers outside of this process (the sqlite3
/// shell) know nothing of it: the log is as long as they make it.
class ReaderGate {
 public:
  static constexpr std::chrono::milliseconds kPatience{2000};

  /// `drained` is called by the last reader that leaves a closed gate, on its thread; it may be called once too often. Set it before any turn.
  explicit ReaderGate(std::function<void()> drained = {}) : drained_(std::move(drained)) {}
  void on_drained(std::function<void()> drained) { drained_ = std::move(drained); }

  /// A reader inside, for as long as this lives.
  class Turn {
   public:
    explicit Turn(ReaderGate* gate) : gate_(gate) {
      if (gate_ != nullptr) gate_->enter();
    }
    ~Turn() {
      if (gate_ != nullptr) gate_->leave();
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    ReaderGate* gate_;
  };

  void close() { closed_ = true; }
  void open() { closed_ = false; }
  bool closed() const { return closed_; }
  bool empty() const { return inside_ == 0; }

 private:
  // Who comes counts itself first and looks then, and the store's thread closes first and counts then: one of them sees the other.
  void enter() {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (true) {
      ++inside_;
      if (!closed_) return;
      if (std::chrono::steady_clock::now() >= end) break;
      leave();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    open();
  }
  void leave() {
    if (--inside_ == 0 && closed_ && drained_) drained_();
  }

  std::function<void()> drained_;  ///< constant once there are readers
  std::atomic<bool> closed_ = false;
  std::atomic<int> inside_ = 0;
};

}  // namespace fusion
