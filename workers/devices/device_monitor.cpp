#include "workers/devices/device_monitor.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <mutex>

#include "base/error.h"
#include "base/log.h"
#include "workers/devices/visible_devices.h"

namespace fusion {

namespace {

/// Of "cuda" and "cuda:<n>"; nullopt for anything else.
std::optional<int> number_of(const std::string& device) {
  if (device == "cuda") return 0;
  int n = -1;
  const std::string prefix = "cuda:";
  if (!device.starts_with(prefix)) return std::nullopt;
  const auto [end, error] = std::from_chars(device.data() + prefix.size(), device.data() + device.size(), n);
  return error == std::errc{} && end == device.data() + device.size() && n >= 0 ? std::optional(n) : std::nullopt;
}

/// "process 123 (4000 MB), process 124"
std::string holders(const std::vector<GpuReading::Process>& processes) {
  std::string text;
  std::size_t shown = 0;
  for (const GpuReading::Process& process : processes) {
    if (++shown > 4) return text + " and " + std::to_string(processes.size() - 4) + " more";
    text += (text.empty() ? "process " : ", process ") + std::to_string(process.pid);
    if (process.memory_mb) text += " (" + std::to_string(*process.memory_mb) + " MB)";
  }
  return text;
}

std::string full(const GpuReading& reading, const DeviceOptions& options, std::int64_t usable, const std::vector<GpuReading::Process>& others) {
  std::string text = options.device + " is full: " + std::to_string(usable) + " of " + std::to_string(reading.memory_mb.value_or(0)) +
                     " MB can be had here, at least " + std::to_string(options.least_mb) + " are wanted";
  if (!others.empty()) text += "; memory is held by " + holders(others);
  return text + "; this worker takes nothing until there is more";
}

/// Whether this process uses CUDA. The management library opens other device files than this one.
bool uses_cuda() {
  std::error_code error;
  for (const auto& open : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    if (std::filesystem::read_symlink(open.path(), error) == "/dev/nvidia-uvm") return true;
  }
  return false;
}

std::string none_of_that_number(int number, const std::optional<std::vector<VisibleDevice>>& visible, std::size_t gpus) {
  const std::string device = "cuda:" + std::to_string(number);
  if (visible && visible->empty()) {
    return "--device: " + device + " was asked for, but " +
           (std::getenv("CUDA_VISIBLE_DEVICES") != nullptr ? "CUDA_VISIBLE_DEVICES hides every GPU"
                                                           : "this Slurm job was given no GPU (ask for one with --gres or --gpus)") +
           "; cpu is there";
  }
  const std::string named = visible ? "CUDA_VISIBLE_DEVICES names " + std::to_string(visible->size()) : "there are " + std::to_string(gpus);
  return "--device: " + device + " was asked for, but " + named + ", numbered from 0, of " + std::to_string(gpus) + " on this host";
}

}  // namespace

DeviceVerdict judge(const GpuReading& reading, const DeviceOptions& options, pid_t self, bool computes) {
  DeviceVerdict verdict;
  protocol::Device& device = verdict.device;
  device = {options.device, reading.model, reading.id, reading.memory_mb, reading.free_mb, reading.utilisation_percent,
            reading.temperature_c, std::nullopt, reading.problem};
  verdict.lost = reading.lost;
  if (!reading.problem.empty()) return verdict;
  std::vector<GpuReading::Process> others;
  std::int64_t own_mb = 0;
  for (const GpuReading::Process& process : reading.processes) {
    if (process.pid == self) own_mb += process.memory_mb.value_or(0);
    else others.push_back(process);
  }
  const bool unseen = computes && others.size() == reading.processes.size();
  if (!unseen) device.others = static_cast<int>(others.size());
  if (reading.mig_enabled) {
    device.problem = options.device + " is cut into MIG slices, of which none is named; name one by its id in CUDA_VISIBLE_DEVICES";
  } else if (reading.memory_mb && reading.free_mb) {
    const auto share_mb = static_cast<std::int64_t>(options.memory_share * static_cast<double>(*reading.memory_mb));
    verdict.usable_mb = unseen ? share_mb : std::min(*reading.free_mb + own_mb, share_mb);
    if (!unseen && *verdict.usable_mb < options.least_mb) device.problem = full(reading, options, *verdict.usable_mb, others);
  }
  return verdict;
}

DeviceMonitor::DeviceMonitor(DeviceOptions options) : options_(std::move(options)) {
  const auto number = number_of(options_.device);
  if (!number) {
    blind_ = "the device is " + options_.device + ", which is not watched";
    return;
  }
  nvml_ = Nvml::open(blind_, options_.nvml);
  if (!nvml_) return;
  const auto visible = visible_devices([](const char* name) { return static_cast<const char*>(std::getenv(name)); });
  const std::vector<std::string> gpus = nvml_->gpus();
  const auto id = id_of_device(*number, visible, gpus, [this](const std::string& gpu) { return nvml_->slices(gpu); });
  if (!id) throw ConfigError(none_of_that_number(*number, visible, gpus.size()));
  id_ = *id;
}

DeviceMonitor::~DeviceMonitor() = default;

std::optional<DeviceVerdict> DeviceMonitor::read() const {
  if (!nvml_) return std::nullopt;
  return judge(nvml_->read(id_), options_, ::getpid(), uses_cuda());
}

// The mutex is here for the condition variable alone, which wakes the thread when it is to end.
void DeviceMonitor::watch(std::function<void(const DeviceVerdict&)> tell) {
  if (!nvml_) return;
  thread_ = std::jthread([this, tell = std::move(tell)](std::stop_token stop) {
    std::mutex mutex;
    std::condition_variable_any end;
    while (!stop.stop_requested()) {
      const DeviceVerdict verdict = judge(nvml_->read(id_), options_, ::getpid(), uses_cuda());
      tell(verdict);
      std::unique_lock lock(mutex);
      end.wait_for(lock, stop, options_.every, [] { return false; });
    }
  });
}

std::vector<GpuReading> list_devices(std::string& why, const std::string& library) {
  std::vector<GpuReading> devices;
  const auto nvml = Nvml::open(why, library);
  if (!nvml) return devices;
  for (const std::string& gpu : nvml->gpus()) {
    devices.push_back(nvml->read(gpu));
    for (const std::string& slice : nvml->slices(gpu)) devices.push_back(nvml->read(slice));
  }
  return devices;
}

}  // namespace fusion
