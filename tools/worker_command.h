#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "tools/worker_blobs.h"
#include "tools/worker_devices.h"
#include "tools/worker_surroundings.h"
#include "workers/client/worker_client.h"
#include "workers/simulate/simulation_options.h"

namespace fusion {

/// The command line of fusion-worker, shared by its two programs: the one that people and launchers start, without LibTorch, and the one
/// that trains, which the first becomes (docs/worker.md, "Two programs").
struct WorkerCommand {
  WorkerClientOptions client;  ///< name and device as given; the rest by `finish`
  WorkerSurroundings surroundings;
  WorkerBlobs blobs;
  WorkerDevices devices;
  std::string log_level = "info", journal;
  int pack = 0, slots = 0;  ///< 0: not given
  bool die_with_parent = false;
  std::string simulate;     ///< empty: train
  std::int64_t simulate_study = 0;
  SimulationOptions simulation;

  /// The command must outlive `app`.
  void add_options(CLI::App& app);
  /// Everything that needs no look at the device. Throws ConfigError, DataError.
  void finish();
  /// Pack and slots, where `usual_pack` is what the device suggests. Throws ConfigError.
  void settle_pack(int usual_pack);
  /// The same later, on a GPU of which so much may be taken now; none where --pack said how many.
  std::optional<WorkerClient::Size> size_on_gpu(std::int64_t usable_bytes) const;
  /// The most that `size_on_gpu` may come to.
  int largest_pack() const { return pack > 0 ? pack : size_of(kMostPackOnGpu).pack; }

  static const char* description();

  /// Trials trained together where --pack does not say, on a core: as many as share a batch's features while these are in its cache.
  static constexpr int kPackOnCpu = 8;
  /// And on a GPU, by the memory that may be taken: one for each 64 MB in steps of eight, before it is known how large they are. What does not
  /// fit after all the engine splits.
  static int pack_on_gpu(std::int64_t usable_bytes);

 private:
  static constexpr int kMostPackOnGpu = 256;
  WorkerClient::Size size_of(int usual_pack) const;
};

/// Has the kernel send SIGTERM when the parent ends. False if it ended before that was arranged: then nobody wants this worker.
bool die_with(pid_t parent);

}  // namespace fusion
