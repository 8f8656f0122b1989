#include "workers/launch/pool_size.h"

#include <algorithm>

namespace fusion {

std::vector<int> wanted_sizes(const OpenWork& work, const std::vector<PoolState>& pools) {
  std::vector<int> sizes;
  auto trials = static_cast<std::int64_t>(work.trials);
  std::vector<int> retrainings = work.retrainings;
  std::sort(retrainings.begin(), retrainings.end());
  for (const PoolState& pool : pools) {
    const std::int64_t per = std::max(pool.trials_per_worker, 1);
    const auto ours = pool.processes ? std::upper_bound(retrainings.begin(), retrainings.end(), *pool.processes) : retrainings.end();
    const std::int64_t can = ours - retrainings.begin();
    const std::int64_t need = pool.busy + can + (trials + per - 1) / per;
    const std::int64_t size = std::clamp<std::int64_t>(need, pool.min, pool.max);
    sizes.push_back(static_cast<int>(size));
    if (pool.stuck) continue;
    const std::int64_t room = std::max<std::int64_t>(0, size - pool.busy);
    const std::int64_t retrained = std::min(room, can);
    retrainings.erase(ours - retrained, ours);
    trials = std::max<std::int64_t>(0, trials - (room - retrained) * per);
  }
  return sizes;
}

int PoolSizer::step(SteadyTime now, int want, int have) {
  if (want >= have) {
    too_many_since_.reset();
    return want - have;
  }
  if (!too_many_since_) {
    too_many_since_ = now;
    most_wanted_ = want;
  }
  most_wanted_ = std::max(most_wanted_, want);
  if (now - *too_many_since_ < shrink_after_) return 0;
  const int step = most_wanted_ - have;
  too_many_since_ = now;  // and again only after as long
  most_wanted_ = want;
  return std::min(step, 0);
}

}  // namespace fusion
