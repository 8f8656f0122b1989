#include "tools/worker_blobs.h"

#include <cstdint>

#include "base/error.h"

namespace fusion {

void WorkerBlobs::add_options(CLI::App& app) {
  app.add_option("--blobs", use_, "Fetch data from the daemon by digest: auto (where its path cannot be read here), always, never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->capture_default_str();
  app.add_option("--cache", cache_, "Folder for what is fetched; workers of one host may share it [FUSION_CACHE, else ~/.cache/fusiond]");
  app.add_option("--cache-gb", cache_gb_, "Most gigabytes (10^9 bytes) in it; what was not used for longest goes first")
      ->check(CLI::Range(0.000001, 1e9))
      ->capture_default_str();
}

DatasetSourceOptions WorkerBlobs::options(const WorkerClientOptions& worker) const {
  DatasetSourceOptions options;
  options.use = enum_from_name<BlobUse>(use_).value_or(BlobUse::automatic);
  options.cache = cache_;
  options.cache_bytes = static_cast<std::uint64_t>(cache_gb_ * 1e9);
  options.fetcher.url = worker.url;
  options.fetcher.token = worker.token;
  options.fetcher.ca_file = worker.ca_file;
  return options;
}

}  // namespace fusion
