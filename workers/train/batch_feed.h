#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "space/architecture.h"
#include "workers/data/features.h"
#include "workers/train/epoch_order.h"

namespace fusion {

/// One mini-batch as a fusion network reads it.
struct Batch {
  std::vector<at::Tensor> joined;  ///< [step]: [B, columns of the step's taps]
  std::vector<at::Tensor> masks;   ///< [step]: [B, R], dropout; empty without
  at::Tensor labels;               ///< [B]
  std::int64_t rows = 0;           ///< B
};

/// Mini-batches of a train split for one architecture, in an order that comes from the seed.
///
/// Rows are gathered, tap beside tap, a tile of batches at a time into buffers that stay; so a batch costs neither an allocation nor a
/// view. A batch is valid until `next` is called again. The last batch of an epoch may be smaller. Order and masks depend on seed,
/// epoch and place in the epoch only. Not thread-safe; the split must outlive it.
class BatchFeed {
 public:
  struct Options {
    std::int64_t batch = 32;
    std::int64_t width = 16;  ///< R
    double dropout = 0;
    bool shuffle = true;
    std::uint64_t order_seed = 0;  ///< of the rows (workers/train/epoch_order.h)
    std::uint64_t seed = 0;        ///< of the masks
    std::int64_t rows = 0;    ///< the first so many rows of each epoch's order are used
  };

  /// Taps must be contiguous on the CPU, float32 or bfloat16 (made float32 while they are gathered); batches come on `device`.
  BatchFeed(const FeatureSplit& split, const Architecture& architecture, const Options& options, c10::Device device);

  /// 0-based.
  void begin_epoch(int epoch);
  /// The next batch of the epoch; nullptr at its end.
  const Batch* next();

 private:
  /// Buffers on the host, which are filled, and on the device, which are read; the same ones where the device is the CPU.
  struct Tile {
    Batch host, device;
  };
  struct Source {
    const std::byte* data;
    std::int64_t width;
    bool half;  ///< bfloat16
  };

  static float* gather(const Source& source, std::uint32_t row, float* out);
  Batch cut(const Batch& tile, std::int64_t begin, std::int64_t rows) const;
  void fill_tile();

  const FeatureSplit& split_;
  Options options_;
  std::vector<std::vector<Source>> sources_;  ///< [step][m]
  std::int64_t tile_rows_ = 0;
  Tile tile_;
  std::vector<Batch> slots_;  ///< the full batches of the tile
  Batch last_;                ///< a smaller one
  EpochOrder order_;
  std::int64_t seen_before_ = 0;  ///< rows of all earlier epochs
  std::int64_t begin_ = 0;        ///< row of the epoch's order where the tile begins
  std::int64_t place_ = 0;        ///< row of the epoch's order where the next batch begins
};

}  // namespace fusion
