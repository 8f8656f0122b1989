#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace fusion {

/// The order in which an epoch reads the rows of the train split: a permutation of 0 .. rows - 1, or that sequence itself without
/// shuffling. It depends on the arguments alone; trials of one study have one `order_seed`, so trials that are trained together read
/// the same batches. The last few orders are kept for the calling thread, so asking again costs nothing.
using EpochOrder = std::shared_ptr<const std::vector<std::uint32_t>>;
EpochOrder epoch_order(std::int64_t rows, bool shuffle, std::uint64_t order_seed, int epoch);

}  // namespace fusion
