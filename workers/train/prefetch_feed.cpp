#include "workers/train/prefetch_feed.h"

#include <utility>

#include "model/device.h"

namespace fusion {

PrefetchFeed::PrefetchFeed(std::vector<Rows> batches, Load load) : batches_(std::move(batches)), load_(std::move(load)) {
  reader_ = std::thread([this] { read(); });
}

PrefetchFeed::~PrefetchFeed() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  reader_.join();
}

void PrefetchFeed::read() {
  prepare_training_thread();
  try {
    for (const Rows& rows : batches_) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stop_ || ready_.size() < kAhead; });
        if (stop_) return;
      }
      RetrainBatch batch = load_(rows);
      const std::lock_guard lock(mutex_);
      ready_.push_back(std::move(batch));
      changed_.notify_all();
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

std::optional<RetrainBatch> PrefetchFeed::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return ended_ || !ready_.empty(); });
  if (ready_.empty()) {
    if (failure_) std::rethrow_exception(failure_);
    return std::nullopt;
  }
  RetrainBatch batch = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return batch;
}

}  // namespace fusion
