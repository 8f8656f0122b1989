#pragma once

#include <cstdint>
#include <functional>

#include "base/progress.h"

namespace fusion {

/// Calls `work(begin, end)` for pieces that cover [0, count) on `threads` threads, in no fixed order, so `work` may write only
/// what belongs to its rows. The calling thread moves the bar. The first exception stops the rest and is thrown here.
void for_row_ranges(std::int64_t count, std::int64_t piece, int threads, Progress& progress,
                    const std::function<void(std::int64_t begin, std::int64_t end)>& work);

}  // namespace fusion
