#pragma once

#include <cstdint>
#include <vector>

namespace fusion {

/// What one rank reads of a batch: rows [begin, end) of the epoch's order.
struct BatchShare {
  std::int64_t begin = 0, end = 0;
  std::int64_t of_rows = 0;  ///< of the whole batch
  bool split = false;        ///< every rank reads its part; else every rank reads the whole batch, which counts once
  /// How often the rows count in the sum over all ranks.
  double weight(int ranks) const { return static_cast<double>(end - begin) / (split ? 1 : ranks); }
  bool operator==(const BatchShare&) const = default;
};

struct StepCut {
  std::int64_t rows_at_once = 1;      ///< of a batch, over all ranks
  int rank = 0, ranks = 1;
  bool needs_variance = false;        ///< a batch of a single row is left out, unless rows_at_once is 1
};

/// The batches of a step over rows [begin, end) of the order, as one rank reads them. A batch is split into runs of rows as equal as may be, so that a
/// row's place, on which dropout depends, and the batch it is in are those of one process. A batch of fewer than two rows per rank is not split.
std::vector<BatchShare> step_shares(std::int64_t begin, std::int64_t end, const StepCut& cut);

}  // namespace fusion
