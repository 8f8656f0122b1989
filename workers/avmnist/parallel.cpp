#include "workers/avmnist/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <thread>
#include <vector>

namespace fusion {

void for_row_ranges(std::int64_t count, std::int64_t piece, int threads, Progress& progress,
                    const std::function<void(std::int64_t, std::int64_t)>& work) {
  std::atomic<std::int64_t> next{0}, done{0};
  std::atomic<int> running{threads};
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(threads));
  const auto run = [&](std::size_t self) {
    try {
      for (std::int64_t begin; (begin = next.fetch_add(piece)) < count;) {
        const std::int64_t end = std::min(begin + piece, count);
        work(begin, end);
        done += end - begin;
      }
    } catch (...) {
      failures[self] = std::current_exception();
      next = count;
    }
    --running;
  };
  {
    std::vector<std::jthread> pool;
    for (std::size_t i = 0; i < failures.size(); ++i) pool.emplace_back(run, i);
    while (running > 0) {
      progress.set(done);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  progress.set(done);
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace fusion
