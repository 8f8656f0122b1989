#include "store/group_commit.h"

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

namespace fusion {
namespace {

// Bounds what one failed commit takes with it, and how long the first answer of a flood waits.
constexpr std::size_t kLargestGroup = 4096;

}  // namespace

// What is posted becomes a handler that only moves it into `inbox`; the first of a group posts `flush` behind what is queued
// by then. So a group is all that arrived while the last one was being synced to disk, without a timer and without a lock of
// ours. Everything below the constructor runs on the store thread.
struct GroupCommit::Impl {
  Impl(Store store_, std::function<void(std::exception_ptr)> on_broken_, RightOfWay* way_)
      : store(std::move(store_)), on_broken(std::move(on_broken_)), way(way_) {}

  void arrive(Item item);
  void flush();
  bool run_together(std::vector<Item>& group);
  std::exception_ptr run_item(Item& item);
  void break_off(std::exception_ptr cause);
  void tend_log();

  Store store;
  std::function<void(std::exception_ptr)> on_broken;
  RightOfWay* way;
  std::vector<Item> inbox;
  bool flush_posted = false;
  std::exception_ptr broken;  ///< set once a commit failed
  StoreFigures figures;

  asio::io_context io{1};
  asio::executor_work_guard<asio::io_context::executor_type> stay{io.get_executor()};
  std::thread thread;
};

void GroupCommit::Impl::arrive(Item item) {
  inbox.push_back(std::move(item));
  if (inbox.size() >= kLargestGroup) {
    flush();
  } else if (!flush_posted) {
    flush_posted = true;
    asio::post(io, [this] {
      flush_posted = false;
      flush();
    });
  }
}

void GroupCommit::Impl::flush() {
  std::vector<Item> group = std::exchange(inbox, {});
  if (group.empty()) return;
  const RightOfWay::Hold hold(way);
  std::vector<std::exception_ptr> errors(group.size());
  try {
    if (broken) std::rethrow_exception(broken);
    store.begin_group();
    if (!run_together(group)) {
      store.rollback_group();
      store.begin_group();
      for (std::size_t i = 0; i < group.size(); ++i) errors[i] = run_item(group[i]);
    }
    const SteadyTime begin = std::chrono::steady_clock::now();
    store.commit_group();
    figures.commit.add(std::chrono::steady_clock::now() - begin);
  } catch (...) {
    store.rollback_group();
    errors.assign(group.size(), std::current_exception());
    if (!broken) break_off(std::current_exception());
  }
  const SteadyTime now = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < group.size(); ++i) {
    figures.on_disk.add(now - group[i].posted);
    figures.answered.add();
    if (errors[i]) figures.failed.add();
    group[i].answer(errors[i]);
  }
  tend_log();
}

void GroupCommit::Impl::tend_log() {
  if (broken) return;
  store.tend_log();
  if (!store.file_is_untrusted()) return;
  break_off(std::make_exception_ptr(StoreError(
      store.path() + ": the system could not sync it to disk; what was acknowledged stands in the log beside it, and is moved into the file on the next start. "
                     "Look after the disk, then start the daemon again")));
}

// Nothing lies between items by which one of them could be undone: a savepoint has SQLite copy each page it touches, which costs more
// than the items themselves. So where one throws, which is rare, all that was done is undone and done again with care.
bool GroupCommit::Impl::run_together(std::vector<Item>& group) {
  try {
    for (Item& item : group) item.work(store);
    return true;
  } catch (...) {
    return false;
  }
}

// An inner group, so that everything an item did is undone if it throws, and nothing else.
std::exception_ptr GroupCommit::Impl::run_item(Item& item) {
  store.begin_group();
  try {
    item.work(store);
    store.commit_group();
    return nullptr;
  } catch (...) {
    store.rollback_group();
    return std::current_exception();
  }
}

void GroupCommit::Impl::break_off(std::exception_ptr cause) {
  broken = cause;
  if (on_broken) on_broken(cause);
}

GroupCommit::GroupCommit(Store store, std::function<void(std::exception_ptr)> on_broken, RightOfWay* way)
    : impl_(std::make_unique<Impl>(std::move(store), std::move(on_broken), way)) {
  impl_->thread = std::thread([impl = impl_.get()] { impl->io.run(); });
}

GroupCommit::~GroupCommit() {
  impl_->stay.reset();
  impl_->thread.join();
}

void GroupCommit::tend_log() {
  asio::post(impl_->io, [impl = impl_.get()] { impl->tend_log(); });
}

const StoreFigures& GroupCommit::figures() const { return impl_->figures; }

void GroupCommit::post(Item item) {
  item.posted = std::chrono::steady_clock::now();
  impl_->figures.posted.add();
  asio::post(impl_->io, [impl = impl_.get(), item = std::move(item)]() mutable { impl->arrive(std::move(item)); });
}

}  // namespace fusion
