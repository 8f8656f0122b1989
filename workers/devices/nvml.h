#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace fusion {

/// One GPU, or one MIG slice of one, as NVIDIA's management library sees it at one moment. What it does not know is none.
struct GpuReading {
  std::string id;     ///< "GPU-5f0c...", "MIG-..."
  std::string model;  ///< "NVIDIA H200"
  std::optional<std::int64_t> memory_mb, free_mb;
  std::optional<int> utilisation_percent, temperature_c;  ///< of a slice: of the whole GPU
  struct Process {
    pid_t pid = 0;
    std::optional<std::int64_t> memory_mb;
  };
  std::vector<Process> processes;  ///< that compute on it
  bool mig_enabled = false;        ///< it is cut into slices: only these compute
  bool lost = false;               ///< it has fallen off the bus, must be reset, or is not there any more
  std::string problem;             ///< why there is no reading: a sentence; else empty
};

/// NVIDIA's management library, loaded at run time: nothing of ours is linked with it, and without it there simply are no readings.
///
/// The library counts GPUs in the order of the PCI bus, as CUDA does with CUDA_DEVICE_ORDER=PCI_BUS_ID. Reading is
/// thread-safe, as it is in the library.
class Nvml {
 public:
  /// Loads `library`, by default what $FUSION_NVML names, else libnvidia-ml.so.1. Null where that fails; then `why` says in a sentence what is missing.
  static std::unique_ptr<Nvml> open(std::string& why, std::string library = "");
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  /// Ids of all GPUs, "" for one that does not even say that. A GPU that fails is there with a problem when it is read.
  std::vector<std::string> gpus() const;
  /// Ids of the MIG slices of one.
  std::vector<std::string> slices(const std::string& gpu) const;
  /// By id. One that is not there (any more) has `lost` and a problem.
  GpuReading read(const std::string& id) const;

 private:
  struct Functions;
  explicit Nvml(std::unique_ptr<Functions> functions);
  std::unique_ptr<Functions> functions_;
};

}  // namespace fusion
