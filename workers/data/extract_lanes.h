#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "model/backbone.h"
#include "model/flat_tensors.h"
#include "model/staged_backbone.h"
#include "workers/data/dataset.h"

namespace fusion {

/// One modality of one split, to be sent through its backbone.
struct ExtractPart {
  std::size_t modality = 0;
  std::string split;
  std::int64_t begin = 0, rows = 0;  ///< rows [begin, rows) are to be made
  /// float32, filled by the lanes: the taps [rows, width], the tokens over time [rows, T, width] of those that have a time axis, and
  /// logits at the end if there are any.
  NamedTensors outputs;
  const std::vector<std::unique_ptr<Backbone>>* backbones = nullptr;  ///< one per lane
  /// Tokens over time are wanted, too: one per lane, in place of `backbones`; and per tap the axis of its map [B, C, ...] that is time, 0 without.
  const std::vector<std::unique_ptr<StagedBackbone>>* staged = nullptr;
  std::vector<std::int64_t> time_axes = {};
};

/// Sends parts through their backbones: as many lanes as there are cores, each a thread of its own with its own instance of every
/// backbone (threads within an operation would only spin), and one more thread that reads and normalises batches ahead of them. A lane
/// that finds none ready makes its own, so that no lane ever waits for data while there is any.
///
/// Batches begin at multiples of `batch`, and each fills its own rows: the outputs do not depend on the number of lanes.
class ExtractLanes {
 public:
  /// Starts. Part p needs `begin` to be a multiple of `batch`. Dataset and parts must outlive this; while it lives, a part's outputs are
  /// the caller's only below what `wait` said.
  ExtractLanes(const Dataset& dataset, std::vector<ExtractPart>& parts, int lanes, std::int64_t batch);
  /// Stops after the batches at hand.
  ~ExtractLanes();
  ExtractLanes(const ExtractLanes&) = delete;
  ExtractLanes& operator=(const ExtractLanes&) = delete;

  struct State {
    std::int64_t ready = 0;          ///< the part's rows [0, ready) are there
    std::vector<std::int64_t> done;  ///< per part: rows that are there, wherever they stand
  };
  /// Waits until a part is all there, at most so long. Throws what a lane threw.
  State wait(std::size_t part, std::chrono::milliseconds at_most);

 private:
  struct Item {
    std::size_t part = 0;
    std::int64_t begin = 0, end = 0;
    at::Tensor batch;
  };
  struct Progress {
    std::vector<bool> finished;  ///< per batch
    std::size_t first_open = 0;
    std::int64_t done = 0;
  };

  void decode_ahead();
  void run_lane(std::size_t lane);
  template <typename Work>
  void guarded(Work&& work);
  bool take_undecoded(Item& item);
  bool take(Item& item, std::unique_lock<std::mutex>& lock);
  void finish(const Item& item);
  void run_batch(std::size_t lane, const Item& item) const;

  // Constant after construction.
  const Dataset& dataset_;
  std::vector<ExtractPart>& parts_;
  const std::int64_t batch_;
  const std::size_t ahead_;

  // Guarded by mutex_.
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t next_part_ = 0;      ///< the next batch that nobody has taken
  std::int64_t next_row_ = 0;
  bool decoding_ = false;          ///< the thread ahead has a batch in hand
  std::deque<Item> decoded_;
  std::vector<Progress> progress_;
  std::exception_ptr failure_;
  bool stop_ = false;

  std::vector<std::thread> threads_;
};

}  // namespace fusion
