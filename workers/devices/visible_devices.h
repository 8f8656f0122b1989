#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fusion {

/// One entry of CUDA_VISIBLE_DEVICES.
struct VisibleDevice {
  enum class Kind {
    index,  ///< "3": the third of those in the order of the PCI bus
    gpu,    ///< "GPU-5f0c": the one whose id begins so
    slice,  ///< "MIG-<uuid>", or the older "MIG-GPU-<uuid>/<gpu instance>/<compute instance>"
  };
  Kind kind = Kind::index;
  int index = 0;
  std::string id;  ///< of gpu and slice, as it stands there
  bool operator==(const VisibleDevice&) const = default;
};

/// CUDA's rules: entries are separated by commas; what stands behind one that is not legal (as "-1" and "NoDevFiles"), or that stands
/// there a second time, does not count. "" hides every GPU.
std::vector<VisibleDevice> parse_visible_devices(std::string_view text);

/// What this process may use: CUDA_VISIBLE_DEVICES; nullopt where it is not set: all. In a Slurm job that was given no GPU (neither
/// SLURM_JOB_GPUS, SLURM_STEP_GPUS, SLURM_GPUS_ON_NODE nor GPU_DEVICE_ORDINAL say so, and CUDA_VISIBLE_DEVICES is not set): none, for what is on the host is somebody else's.
std::optional<std::vector<VisibleDevice>> visible_devices(const std::function<const char*(const char*)>& environment);

/// The id of what CUDA calls number `n`, given the ids of all GPUs in the order of the PCI bus and the slices of a GPU; nullopt if there is no such one.
/// A GPU that is cut into slices stands for its first slice, as in CUDA. `visible`: as above.
std::optional<std::string> id_of_device(int n, const std::optional<std::vector<VisibleDevice>>& visible, const std::vector<std::string>& gpus,
                                        const std::function<std::vector<std::string>(const std::string& gpu)>& slices);

}  // namespace fusion
