#pragma once

#include <sys/types.h>

#include <cstdint>
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

  static const char* description();
};

/// Trials trained together where --pack does not say, on a core: as many as share a batch's features while these are in its cache.
inline constexpr int kPackOnCpu = 8;

/// Has the kernel send SIGTERM when the parent ends. False if it ended before that was arranged: then nobody wants this worker.
bool die_with(pid_t parent);

}  // namespace fusion
