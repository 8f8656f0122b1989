#include "tools/worker_times.h"

#include <algorithm>
#include <cmath>

namespace fusion {
namespace {

double seconds(WorkerTimes::Clock::duration of) { return std::chrono::duration<double>(of).count(); }

}  // namespace

void WorkerTimes::pack_begun(Clock::time_point at) {
  if (packs_ == 0) {
    first_ = at;
  } else {
    gaps_s_.push_back(static_cast<float>(seconds(at - ended_)));
  }
  begun_ = at;
}

void WorkerTimes::pack_ended(Clock::time_point at) {
  ++packs_;
  busy_s_ += seconds(at - begun_);
  span_s_ = seconds(at - first_);
  ended_ = at;
}

double WorkerTimes::gap_s(double share) const {
  if (gaps_s_.empty()) return 0;
  std::vector<float> sorted = gaps_s_;
  std::sort(sorted.begin(), sorted.end());
  const auto place = static_cast<std::size_t>(std::lround(share * static_cast<double>(sorted.size() - 1)));
  return static_cast<double>(sorted[place]);
}

}  // namespace fusion
