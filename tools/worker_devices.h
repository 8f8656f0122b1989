#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "tools/run_main.h"
#include "workers/client/worker_client.h"
#include "workers/devices/device_monitor.h"

namespace fusion {

/// What a worker knows of its device, and its options --memory-share, --least-gpu-mb and --list-devices.
class WorkerDevices {
 public:
  /// Must outlive `app`.
  void add_options(CLI::App& app);

  bool list_only() const { return list_; }
  /// Prints every GPU that NVML sees, one JSON object a line. Returns the exit status: 0, or 1 without NVML.
  int list() const;

  /// Finds the device and looks at it once. Throws ConfigError where it is not there, though NVML is.
  void begin(const std::string& device);
  /// What of `free` bytes this worker may take.
  std::int64_t usable_bytes(std::int64_t free) const;
  /// The same as far as NVML alone knows it; none where it sees nothing.
  std::optional<std::int64_t> usable_bytes() const;
  /// A sentence if the device is gone. Any thread.
  std::optional<std::string> lost() const;

  /// Of what this worker may take of its device's memory, how many trials it trains at once and holds.
  using SizeOf = std::function<std::optional<WorkerClient::Size>(std::int64_t usable_bytes)>;
  /// Tells the daemon what is seen of the device, and what `size` makes of it, as long as it lives; a device that is lost has the worker leave.
  /// `client` must outlive it.
  class Watch {
   public:
    explicit Watch(std::unique_ptr<DeviceMonitor> monitor) : monitor_(std::move(monitor)) {}

   private:
    std::unique_ptr<DeviceMonitor> monitor_;
  };
  Watch watch(WorkerClient& client, SizeOf size) const;

 private:
  DeviceOptions options_;
  std::unique_ptr<DeviceMonitor> monitor_;
  bool list_ = false;
};

}  // namespace fusion
