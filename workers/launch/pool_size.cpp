#include "workers/launch/pool_size.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <tuple>

namespace fusion {

namespace {

double epoch_s(const PoolState& pool, const OpenRetraining& retraining) {
  const std::optional<double>& known = pool.gpu ? retraining.epoch_gpu_s : retraining.epoch_cpu_s;
  return known.value_or(pool.first_epoch_s.value_or(0));
}

bool has_processes(const PoolState& pool, const OpenRetraining& retraining) { return retraining.processes <= pool.processes.value_or(retraining.processes); }

bool can_do(const PoolState& pool, const OpenRetraining& retraining) {
  return has_processes(pool, retraining) && (!pool.longest_epoch_s || epoch_s(pool, retraining) <= *pool.longest_epoch_s);
}

std::string seconds_text(double seconds) { return std::to_string(std::lround(seconds)) + " s"; }

}  // namespace

std::vector<int> wanted_sizes(const OpenWork& work, const std::vector<PoolState>& pools) {
  std::vector<int> sizes;
  auto trials = static_cast<std::int64_t>(work.trials);
  std::vector<OpenRetraining> retrainings = work.retrainings;
  std::ranges::sort(retrainings, std::greater(), [](const OpenRetraining& r) { return std::tuple(r.processes, r.epoch_gpu_s, r.epoch_cpu_s); });
  for (const PoolState& pool : pools) {
    const std::int64_t per = std::max(pool.trials_per_worker, 1);
    const std::int64_t can = std::ranges::count_if(retrainings, [&pool](const OpenRetraining& r) { return can_do(pool, r); });
    const std::int64_t need = pool.busy + can + (trials + per - 1) / per;
    const std::int64_t size = std::clamp<std::int64_t>(need, pool.min, pool.max);
    sizes.push_back(static_cast<int>(size));
    if (pool.stuck) continue;
    const std::int64_t room = std::max<std::int64_t>(0, size - pool.busy);
    const std::int64_t retrained = std::min(room, can);
    std::int64_t taken = 0;
    std::erase_if(retrainings, [&](const OpenRetraining& r) { return taken < retrained && can_do(pool, r) && ++taken > 0; });
    trials = std::max<std::int64_t>(0, trials - (room - retrained) * per);
  }
  return sizes;
}

std::string what_it_lacks(const PoolState& pool, const OpenWork& work, const std::vector<PoolState>& pools) {
  const auto lost = std::ranges::find_if(work.retrainings, [&pools](const OpenRetraining& retraining) {
    return std::ranges::none_of(pools, [&retraining](const PoolState& any) { return can_do(any, retraining); });
  });
  if (lost == work.retrainings.end()) return "";
  const std::string waits = "a retraining waits that no pool's workers can do: it wants ";
  if (pool.processes == 0) return waits + "workers that retrain, and these train trials only";
  if (!has_processes(pool, *lost)) {
    return waits + std::to_string(lost->processes) + " GPUs, and these have " + std::to_string(*pool.processes) + " (gpus_per_worker)";
  }
  return waits + "about " + seconds_text(epoch_s(pool, *lost)) + " for an epoch, and these have at most " + seconds_text(*pool.longest_epoch_s) + " (time)";
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
