#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/asio.h"
#include "base/metrics.h"
#include "store/right_of_way.h"
#include "store/store.h"

namespace fusion {

/// What came of a piece of work on the store: a value, or the exception that it threw (then nothing of it is stored).
template <typename R>
class StoreResult {
 public:
  StoreResult(R value) : value_(std::move(value)) {}
  StoreResult(std::exception_ptr error) : error_(std::move(error)) {}
  bool ok() const { return !error_; }
  /// Rethrows where there is no value.
  R& value() {
    if (error_) std::rethrow_exception(error_);
    return *value_;
  }

 private:
  std::optional<R> value_;
  std::exception_ptr error_;
};

/// What the store thread has done since it began; any thread may read it.
struct StoreFigures {
  Counter posted, answered;   ///< pieces of work; the difference waits, or is at work
  Counter failed;             ///< of these: threw, or could not be committed
  DurationHistogram commit;   ///< the commit of a group alone: mostly the sync to disk
  DurationHistogram on_disk;  ///< from when work was posted until it was on disk (or failed)
};

/// The store thread: owns the Store, runs what is posted to it in the order it was posted, collects all that has arrived into
/// one transaction, commits it (one sync to disk), and only then posts the answers to their executors, in the same order.
///
/// Work that throws is rolled back alone; its answer carries the exception. To that end the work of a group may be run twice: it must not
/// change what it holds, nor swallow what the store throws. If the commit itself fails (disk full), every answer of that group carries the
/// StoreError and `on_broken` is called once: the daemon must stop, nothing more is accepted. The same, with no answer lost, where the file cannot
/// be synced when the log is moved into it (store/log_keeper.h). `async` may be called from any thread. Destruction finishes what was posted, then
/// joins the thread. `way`, if there is one, is taken while a group is worked on (store/right_of_way.h) and outlives this.
class GroupCommit {
 public:
  GroupCommit(Store store, std::function<void(std::exception_ptr)> on_broken, RightOfWay* way = nullptr);
  ~GroupCommit();

  /// `work(Store&)` on the store thread; `done(StoreResult<R>)` on `executor` after the commit. R is what work returns; for
  /// void use `std::monostate`.
  template <typename Executor, typename Work, typename Done>
  void async(Executor executor, Work work, Done done) {
    using R = std::invoke_result_t<Work&, Store&>;
    auto result = std::make_shared<std::optional<StoreResult<R>>>();
    post({[result, work = std::move(work)](Store& store) mutable { result->emplace(work(store)); },
          [result, executor, done = std::move(done)](std::exception_ptr error) mutable {
            if (error) result->emplace(error);
            asio::post(executor, [result, done = std::move(done)]() mutable { done(std::move(**result)); });
          },
          {}});
  }

  /// Looks on the store thread whether the log can be moved into the file now: readers have left (store/reader_gate.h). Any thread.
  void tend_log();
  const StoreFigures& figures() const;

 private:
  struct Item {
    std::function<void(Store&)> work;
    std::function<void(std::exception_ptr)> answer;  ///< called on the store thread after commit or failure
    SteadyTime posted{};
  };
  void post(Item item);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fusion
