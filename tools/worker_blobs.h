#pragma once

#include <string>

#include "tools/run_main.h"
#include "workers/client/dataset_source.h"
#include "workers/client/worker_client.h"

namespace fusion {

/// Where a worker finds data: its options --blobs, --cache and --cache-gb.
class WorkerBlobs {
 public:
  /// Must outlive `app`.
  void add_options(CLI::App& app);
  /// Fetching takes address, token and trust from the worker's own options. Throws ConfigError.
  DatasetSourceOptions options(const WorkerClientOptions& worker) const;

 private:
  std::string use_ = "auto", cache_;
  double cache_gb_ = 100;
};

}  // namespace fusion
