#include "workers/data/extract_lanes.h"

#include <algorithm>

#include "model/device.h"
#include "model/time_axis.h"
#include "model/torch_compat.h"

namespace fusion {

ExtractLanes::ExtractLanes(const Dataset& dataset, std::vector<ExtractPart>& parts, int lanes, std::int64_t batch)
    : dataset_(dataset), parts_(parts), batch_(batch), ahead_(static_cast<std::size_t>(lanes)) {
  for (const ExtractPart& part : parts_) {
    Progress& progress = progress_.emplace_back();
    progress.finished.resize(static_cast<std::size_t>((part.rows + batch - 1) / batch));
    progress.first_open = static_cast<std::size_t>(part.begin / batch);
    progress.done = part.begin;
  }
  if (!parts_.empty()) next_row_ = parts_.front().begin;
  threads_.emplace_back([this] { guarded([this] { decode_ahead(); }); });
  for (std::size_t lane = 0; lane < ahead_; ++lane) {
    threads_.emplace_back([this, lane] { guarded([this, lane] { run_lane(lane); }); });
  }
}

ExtractLanes::~ExtractLanes() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

ExtractLanes::State ExtractLanes::wait(std::size_t part, std::chrono::milliseconds at_most) {
  std::unique_lock lock(mutex_);
  const Progress& own = progress_[part];
  changed_.wait_for(lock, at_most, [&] { return failure_ || own.first_open == own.finished.size(); });
  if (failure_) std::rethrow_exception(failure_);
  State state;
  state.ready = std::min(parts_[part].rows, static_cast<std::int64_t>(own.first_open) * batch_);
  for (const Progress& progress : progress_) state.done.push_back(progress.done);
  return state;
}

template <typename Work>
void ExtractLanes::guarded(Work&& work) {
  try {
    work();
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    stop_ = true;
  }
  changed_.notify_all();
}

/// With the mutex held.
bool ExtractLanes::take_undecoded(Item& item) {
  while (next_part_ < parts_.size() && next_row_ >= parts_[next_part_].rows) {
    if (++next_part_ < parts_.size()) next_row_ = parts_[next_part_].begin;
  }
  if (next_part_ == parts_.size()) return false;
  item = {next_part_, next_row_, std::min(parts_[next_part_].rows, next_row_ + batch_), {}};
  next_row_ = item.end;
  return true;
}

void ExtractLanes::decode_ahead() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || decoded_.size() < ahead_; });
    Item item;
    if (stop_ || !take_undecoded(item)) return;
    decoding_ = true;
    lock.unlock();
    item.batch = dataset_.batch(parts_[item.part].modality, parts_[item.part].split, item.begin, item.end);
    lock.lock();
    decoding_ = false;
    decoded_.push_back(std::move(item));
    changed_.notify_all();
  }
}

/// The next batch for a lane, decoded or not; false if there is none left.
bool ExtractLanes::take(Item& item, std::unique_lock<std::mutex>& lock) {
  for (;;) {
    if (stop_) return false;
    if (!decoded_.empty()) {
      item = std::move(decoded_.front());
      decoded_.pop_front();
      changed_.notify_all();
      return true;
    }
    if (take_undecoded(item)) return true;
    if (!decoding_) return false;
    changed_.wait(lock);
  }
}

void ExtractLanes::run_lane(std::size_t lane) {
  prepare_training_thread();
  std::unique_lock lock(mutex_);
  Item item;
  while (take(item, lock)) {
    lock.unlock();
    if (!item.batch.defined()) item.batch = dataset_.batch(parts_[item.part].modality, parts_[item.part].split, item.begin, item.end);
    run_batch(lane, item);
    lock.lock();
    finish(item);
  }
}

/// Without the mutex: a batch fills rows that are its own.
void ExtractLanes::run_batch(std::size_t lane, const Item& item) const {
  ExtractPart& part = parts_[item.part];
  auto output = part.outputs.begin();
  const auto fill = [&](const at::Tensor& values) { (output++)->second.slice(0, item.begin, item.end).copy_(values); };
  if (!part.staged) {
    const BackboneOutput out = (*part.backbones)[lane]->forward(item.batch);
    for (const at::Tensor& tap : out.taps) fill(tap);
    if (out.logits.defined()) fill(out.logits);
    return;
  }
  const at::NoGradGuard no_grad;
  const BackboneMaps out = (*part.staged)[lane]->forward(item.batch, false);
  for (const at::Tensor& map : out.maps) fill(pool_tap(map));
  for (std::size_t i = 0; i < out.maps.size(); ++i) {
    if (part.time_axes[i] > 0) fill(tokens_of(out.maps[i], part.time_axes[i]));
  }
  if (out.logits.defined()) fill(out.logits);
}

/// With the mutex held.
void ExtractLanes::finish(const Item& item) {
  Progress& progress = progress_[item.part];
  progress.finished[static_cast<std::size_t>(item.begin / batch_)] = true;
  progress.done += item.end - item.begin;
  while (progress.first_open < progress.finished.size() && progress.finished[progress.first_open]) ++progress.first_open;
  if (progress.first_open == progress.finished.size()) changed_.notify_all();
}

}  // namespace fusion
