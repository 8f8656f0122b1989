#include "workers/dispatch/epoch_times.h"

#include <algorithm>
#include <vector>

namespace fusion {

namespace {

std::string kind_of(const std::string& device) { return device.substr(0, device.find(':')); }

}  // namespace

void EpochTimes::note(const std::string& device, const RetrainingEpoch& epoch) {
  if (epoch.epoch <= last_) return;
  last_ = epoch.epoch;
  std::deque<double>& times = seconds_[{kind_of(device), epoch.phase}];
  times.push_back(epoch.seconds);
  if (times.size() > kKept) times.pop_front();
}

std::optional<double> EpochTimes::next(const std::string& device, const RetrainingOptions& options) const {
  const auto found = seconds_.find({kind_of(device), last_ < options.fusion_epochs ? 1 : 2});
  if (found == seconds_.end()) return std::nullopt;
  std::vector<double> sorted(found->second.begin(), found->second.end());
  std::ranges::sort(sorted);
  return sorted[sorted.size() / 2];
}

}  // namespace fusion
