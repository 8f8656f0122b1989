#include "workers/client/wall_time.h"

#include <algorithm>

namespace fusion {

using Seconds = std::chrono::duration<double>;

namespace {

constexpr double kMargin = 1.25;  // others on the host, a slower study, the way to the daemon
constexpr double kForget = 0.05;  // of a slow one with each that was faster

}  // namespace

void WallTime::note(Seconds trial) {
  if (!trial_ || trial >= *trial_) trial_ = trial;
  else *trial_ += kForget * (trial - *trial_);
}

std::optional<Seconds> WallTime::left(SteadyTime now) const {
  if (!options_.left) return std::nullopt;
  return std::max(Seconds(0), Seconds(*options_.left) - Seconds(now - began_));
}

// Short limits (tests, backfill) keep most of their time.
std::chrono::milliseconds WallTime::reserve() const {
  return options_.left ? std::min(options_.reserve, *options_.left / 4) : options_.reserve;
}

std::optional<Seconds> WallTime::usable(SteadyTime now) const {
  const auto rest = left(now);
  if (!rest) return std::nullopt;
  return std::max(Seconds(0), *rest - Seconds(reserve()));
}

std::optional<Seconds> WallTime::longest_epoch(SteadyTime now) const {
  const auto rest = usable(now);
  return rest ? std::optional(*rest / kMargin) : std::nullopt;
}

std::optional<Seconds> WallTime::first_epoch() const { return limited() ? std::optional(Seconds(options_.first) / kMargin) : std::nullopt; }

bool WallTime::enough_for(Seconds work, SteadyTime now) const {
  const auto rest = usable(now);
  return !rest || kMargin * work <= *rest;
}

std::optional<int> WallTime::fits(SteadyTime now, int pack, int slots) const {
  const auto rest = usable(now);
  if (!rest) return std::nullopt;
  if (*rest <= Seconds(0)) return 0;
  if (!trial_) return *rest >= Seconds(options_.first) ? std::min(pack, slots) : 0;
  const double packs = *rest / std::max(Seconds(0.001), kMargin * *trial_);
  return static_cast<int>(std::min<double>(slots, static_cast<double>(pack) * static_cast<double>(static_cast<long long>(std::min(packs, 1e6)))));
}

bool WallTime::over(SteadyTime now) const {
  const auto rest = left(now);
  return rest && *rest <= Seconds(reserve());
}

}  // namespace fusion
