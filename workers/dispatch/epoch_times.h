#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "space/retraining.h"

namespace fusion {

/// How long the epochs of one retraining took, by the kind of device ("cpu", "cuda") and the phase: what another one will take. Values only.
class EpochTimes {
 public:
  static constexpr std::size_t kKept = 9;  ///< of each kind of device and phase

  /// An epoch that was done on that device ("cuda:1"). One that is known already (an attempt tells the epoch of the checkpoint that it found
  /// again) says nothing of the device.
  void note(const std::string& device, const RetrainingEpoch& epoch);
  /// The median of the last kKept like the one behind the last known, in seconds; none where there was none.
  std::optional<double> next(const std::string& device, const RetrainingOptions& options) const;

 private:
  std::map<std::pair<std::string, int>, std::deque<double>> seconds_;  // by kind and phase, the newest last
  int last_ = 0;
};

}  // namespace fusion
