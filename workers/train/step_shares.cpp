#include "workers/train/step_shares.h"

#include <algorithm>

namespace fusion {

std::vector<BatchShare> step_shares(std::int64_t begin, std::int64_t end, const StepCut& cut) {
  std::vector<BatchShare> shares;
  for (std::int64_t at = begin; at < end; at += cut.rows_at_once) {
    const std::int64_t rows = std::min(end - at, cut.rows_at_once);
    if (rows == 1 && cut.rows_at_once > 1 && cut.needs_variance) continue;
    const bool split = cut.ranks > 1 && rows >= 2 * cut.ranks;
    const auto edge = [&](int rank) { return at + rows * rank / cut.ranks; };
    shares.push_back(split ? BatchShare{edge(cut.rank), edge(cut.rank + 1), rows, true} : BatchShare{at, at + rows, rows, false});
  }
  return shares;
}

}  // namespace fusion
