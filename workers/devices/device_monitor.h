#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "workers/devices/nvml.h"
#include "workers/protocol/messages.h"

namespace fusion {

struct DeviceOptions {
  std::string device = "cpu";          ///< "cpu", "cuda", "cuda:<n>"
  double memory_share = 1;             ///< the part of the GPU's memory that this worker may take: 1/4 for each of four on one GPU
  std::int64_t least_mb = 512;         ///< with less to take the GPU is full: the worker takes nothing
  std::chrono::milliseconds every{5'000};  ///< between two readings
  std::string nvml;                    ///< the library; empty: as Nvml::open
};

/// What a reading means to one worker.
struct DeviceVerdict {
  protocol::Device device;
  std::optional<std::int64_t> usable_mb;  ///< what it may take, what it has already included: of what is free, at most its share
  bool lost = false;
};

/// `self`: this process, whose memory counts as free for itself. A device that is full gets a sentence that says who holds the memory.
///
/// `computes`: this process uses CUDA. Where it is none of those that are read all the same (a container has process numbers of its own), nobody
/// can tell its memory from that of others: then its whole share is usable and the device is never full.
DeviceVerdict judge(const GpuReading& reading, const DeviceOptions& options, pid_t self, bool computes = false);

/// Watches a worker's device through NVML and tells what it sees. Without NVML, and on a CPU, it sees nothing and says so once.
///
/// A thread of its own reads, from `watch` to the destructor. `read` is for any thread.
class DeviceMonitor {
 public:
  /// Finds the device among those that CUDA_VISIBLE_DEVICES, or a Slurm job, leaves to this process. Throws ConfigError where there is NVML, but no such device.
  explicit DeviceMonitor(DeviceOptions options);
  ~DeviceMonitor();
  DeviceMonitor(const DeviceMonitor&) = delete;
  DeviceMonitor& operator=(const DeviceMonitor&) = delete;

  /// Now; none on a CPU.
  std::optional<DeviceVerdict> read() const;
  /// Why nothing is seen; empty if something is.
  const std::string& blind() const { return blind_; }
  /// Calls `tell` now and every `every`, from the monitor's thread.
  void watch(std::function<void(const DeviceVerdict&)> tell);

 private:
  DeviceOptions options_;
  std::unique_ptr<Nvml> nvml_;  // of the thread, once it runs
  std::string id_, blind_;
  std::jthread thread_;
};

/// Every GPU that NVML sees, with its slices behind it: what `fusion-worker --list-devices` shows. `why`: as Nvml::open.
std::vector<GpuReading> list_devices(std::string& why, const std::string& nvml = "");

}  // namespace fusion
