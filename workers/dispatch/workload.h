#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace fusion {

/// What there is to do and who does it, as whoever keeps workers in number has to know it (Dispatcher::workload).
struct Workload {
  struct Worker {  ///< one that is connected
    std::string name;
    std::string job;        ///< of the batch system; empty outside of one
    int pack = 1;           ///< trials it trains at once
    std::size_t held = 0;   ///< trials it has, in training or waiting
    bool busy = false;      ///< it has a trial or a retraining, or is about to
    bool leaving = false;
    std::optional<int> processes{};                            ///< most that a retraining may have there (protocol::Hello)
    std::optional<double> longest_epoch_s{}, first_epoch_s{};  ///< as it said last (protocol::Condition)
  };
  struct Retraining {  ///< one that waits, and is not paused
    int processes = 1;
    std::optional<double> epoch_cpu_s{}, epoch_gpu_s{};  ///< what its next epoch takes there; none: there was none yet
  };
  std::size_t queued = 0;      ///< trials of studies that are not paused, which no worker has
  std::vector<Retraining> retrainings;
  std::vector<Worker> workers;
};

}  // namespace fusion
