#pragma once

#include <chrono>
#include <cstdint>

namespace fusion {

/// Milliseconds since 1970, UTC: how every time is stored and sent.
using UnixMs = std::int64_t;
using SteadyTime = std::chrono::steady_clock::time_point;

/// Where time comes from. Leases use `steady()` only, so a clock that is set never expires one; `unix_ms()` is for records.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual SteadyTime steady() const = 0;
  virtual UnixMs unix_ms() const = 0;
};

class SystemClock final : public Clock {
 public:
  SteadyTime steady() const override { return std::chrono::steady_clock::now(); }
  UnixMs unix_ms() const override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
};

/// Stands still until told: for tests.
class ManualClock final : public Clock {
 public:
  SteadyTime steady() const override { return SteadyTime{} + std::chrono::hours(1) + elapsed_; }
  UnixMs unix_ms() const override { return 1'700'000'000'000 + elapsed_.count(); }
  void advance(std::chrono::milliseconds by) { elapsed_ += by; }

 private:
  std::chrono::milliseconds elapsed_{0};
};

}  // namespace fusion
