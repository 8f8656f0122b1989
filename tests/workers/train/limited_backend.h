#pragma once

#include <algorithm>
#include <map>

#include "workers/train/stacked_forwarding.h"

namespace fusion::test {

/// A CPU that behaves as a small GPU does: memory of its own, of which there is so much and no more.
template <typename T>
class LimitedBackend final : public stacked::ForwardingBackend<T> {
 public:
  explicit LimitedBackend(std::int64_t limit) : stacked::ForwardingBackend<T>(stacked::make_cpu_backend<T>()), limit_(limit) {}

  std::int64_t most_taken() const { return most_taken_; }
  std::int64_t taken() const { return taken_; }
  int refusals() const { return refusals_; }

  std::optional<std::int64_t> free_bytes() const override { return limit_ - taken_; }
  void* allocate(std::int64_t bytes) override {
    if (taken_ + bytes > limit_) {
      ++refusals_;
      throw stacked::OutOfMemory();
    }
    void* const memory = stacked::ForwardingBackend<T>::allocate(bytes);
    sizes_[memory] = bytes;
    taken_ += bytes;
    most_taken_ = std::max(most_taken_, taken_);
    return memory;
  }
  void release(void* memory) noexcept override {
    taken_ -= sizes_[memory];
    sizes_.erase(memory);
    stacked::ForwardingBackend<T>::release(memory);
  }
  bool reads_host_memory() const override { return false; }

 private:
  const std::int64_t limit_;
  std::map<void*, std::int64_t> sizes_;
  std::int64_t taken_ = 0, most_taken_ = 0;
  int refusals_ = 0;
};

}  // namespace fusion::test
