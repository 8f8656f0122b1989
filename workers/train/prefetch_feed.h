#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "workers/train/retrain_inputs.h"

namespace fusion {

/// Reads batches ahead in a thread of its own, in their order, so that the trainer does not wait for the disk or for normalising.
/// What `load` throws is thrown by `next`. Call `next` from one thread. The destructor waits for the batch at hand only.
class PrefetchFeed {
 public:
  using Rows = std::vector<std::int64_t>;
  using Load = std::function<RetrainBatch(const Rows&)>;
  static constexpr std::size_t kAhead = 4;  ///< batches in memory beside the one in use

  PrefetchFeed(std::vector<Rows> batches, Load load);
  ~PrefetchFeed();
  PrefetchFeed(const PrefetchFeed&) = delete;
  PrefetchFeed& operator=(const PrefetchFeed&) = delete;

  /// nullopt behind the last one.
  std::optional<RetrainBatch> next();

 private:
  void read();

  const std::vector<Rows> batches_;
  const Load load_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<RetrainBatch> ready_;   // guarded by mutex_
  std::exception_ptr failure_;       // guarded by mutex_
  bool ended_ = false, stop_ = false;  // guarded by mutex_
  std::thread reader_;
};

}  // namespace fusion
