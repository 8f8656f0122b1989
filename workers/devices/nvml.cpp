#include "workers/devices/nvml.h"

#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <functional>

namespace fusion {

namespace {

// What we need of nvml.h (NVIDIA's documentation of the NVML API), so that it need not be there when we are built.
using Handle = void*;
using Return = int;
constexpr Return kSuccess = 0, kNotFound = 6, kGpuIsLost = 15, kResetRequired = 16, kInsufficientSize = 7;
constexpr unsigned kTextSize = 96;
constexpr int kTemperatureOfGpu = 0;
constexpr unsigned long long kNotAvailable = ~0ull;

struct Memory {
  unsigned long long total = 0, free = 0, used = 0;
};
struct Utilization {
  unsigned gpu = 0, memory = 0;
};
struct ProcessInfo {  // of the second and third version of the function
  unsigned pid = 0;
  unsigned long long used = 0;
  unsigned gpu_instance = 0, compute_instance = 0;
};
struct OldProcessInfo {  // of the first
  unsigned pid = 0;
  unsigned long long used = 0;
};

std::int64_t megabytes(unsigned long long bytes) { return static_cast<std::int64_t>(bytes >> 20); }

bool is_gone(Return code) { return code == kGpuIsLost || code == kResetRequired || code == kNotFound; }

}  // namespace

/// The library and its functions; those that may be absent in old or new ones are null then.
struct Nvml::Functions {
  void* library = nullptr;
  Return (*init)() = nullptr;
  Return (*shutdown)() = nullptr;
  const char* (*error_text)(Return) = nullptr;
  Return (*count)(unsigned*) = nullptr;
  Return (*by_index)(unsigned, Handle*) = nullptr;
  Return (*by_id)(const char*, Handle*) = nullptr;
  Return (*name)(Handle, char*, unsigned) = nullptr;
  Return (*id)(Handle, char*, unsigned) = nullptr;
  Return (*memory)(Handle, Memory*) = nullptr;
  Return (*utilization)(Handle, Utilization*) = nullptr;
  Return (*temperature)(Handle, int, unsigned*) = nullptr;
  Return (*processes)(Handle, unsigned*, ProcessInfo*) = nullptr;
  Return (*old_processes)(Handle, unsigned*, OldProcessInfo*) = nullptr;
  Return (*mig_mode)(Handle, unsigned*, unsigned*) = nullptr;
  Return (*most_slices)(Handle, unsigned*) = nullptr;
  Return (*slice)(Handle, unsigned, Handle*) = nullptr;
  Return (*parent)(Handle, Handle*) = nullptr;

  template <typename F>
  bool find(F& function, const char* symbol) {
    function = reinterpret_cast<F>(::dlsym(library, symbol));
    return function != nullptr;
  }

  /// Empty, or the first symbol that is missing.
  std::string find_all() {
    const bool needed = find(init, "nvmlInit_v2") && find(shutdown, "nvmlShutdown") && find(error_text, "nvmlErrorString") &&
                        find(count, "nvmlDeviceGetCount_v2") && find(by_index, "nvmlDeviceGetHandleByIndex_v2") &&
                        find(by_id, "nvmlDeviceGetHandleByUUID") && find(name, "nvmlDeviceGetName") && find(id, "nvmlDeviceGetUUID") &&
                        find(memory, "nvmlDeviceGetMemoryInfo");
    if (!needed) return "it lacks a function of NVML's second version";
    find(utilization, "nvmlDeviceGetUtilizationRates");
    find(temperature, "nvmlDeviceGetTemperature");
    if (!find(processes, "nvmlDeviceGetComputeRunningProcesses_v3") && !find(processes, "nvmlDeviceGetComputeRunningProcesses_v2")) {
      find(old_processes, "nvmlDeviceGetComputeRunningProcesses");
    }
    find(mig_mode, "nvmlDeviceGetMigMode");
    find(most_slices, "nvmlDeviceGetMaxMigDeviceCount");
    find(slice, "nvmlDeviceGetMigDeviceHandleByIndex");
    find(parent, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle");
    return "";
  }

  std::string text(Return (*ask)(Handle, char*, unsigned), Handle of) const {
    std::array<char, kTextSize> buffer{};
    return ask(of, buffer.data(), kTextSize) == kSuccess ? buffer.data() : "";
  }

  template <typename Info>
  std::vector<GpuReading::Process> processes_of(Return (*ask)(Handle, unsigned*, Info*), Handle of) const {
    std::vector<GpuReading::Process> found;
    if (ask == nullptr) return found;
    std::vector<Info> infos(64);
    auto n = static_cast<unsigned>(infos.size());
    Return code = ask(of, &n, infos.data());
    if (code == kInsufficientSize && n < 1u << 20) {
      infos.resize(n + 16);
      n = static_cast<unsigned>(infos.size());
      code = ask(of, &n, infos.data());
    }
    if (code != kSuccess) return found;
    for (unsigned i = 0; i < n && i < infos.size(); ++i) {
      GpuReading::Process process{static_cast<pid_t>(infos[i].pid), std::nullopt};
      if (infos[i].used != kNotAvailable) process.memory_mb = megabytes(infos[i].used);
      found.push_back(process);
    }
    return found;
  }

  /// Utilisation and temperature, which a slice has not: then of the GPU that it is a slice of.
  void read_whole(Handle of, GpuReading& reading) const {
    Handle whole = nullptr;
    if (parent == nullptr || parent(of, &whole) != kSuccess) whole = of;
    Utilization busy;
    unsigned degrees = 0;
    if (utilization != nullptr && utilization(whole, &busy) == kSuccess) reading.utilisation_percent = static_cast<int>(busy.gpu);
    if (temperature != nullptr && temperature(whole, kTemperatureOfGpu, &degrees) == kSuccess) reading.temperature_c = static_cast<int>(degrees);
  }

  void fill(Handle of, GpuReading& reading) const {
    reading.model = text(name, of);
    Memory bytes;
    if (const Return code = memory(of, &bytes); code != kSuccess) {
      reading.lost = is_gone(code);
      reading.problem = reading.id + (reading.lost ? " is lost: " : " cannot be read: ") + error_text(code) +
                        (reading.lost ? "; reset it (nvidia-smi --gpu-reset), or restart the host" : "");
      return;
    }
    reading.memory_mb = megabytes(bytes.total);
    reading.free_mb = megabytes(bytes.free);
    unsigned now = 0, pending = 0;
    reading.mig_enabled = mig_mode != nullptr && mig_mode(of, &now, &pending) == kSuccess && now == 1 && !reading.id.starts_with("MIG-");
    read_whole(of, reading);
    reading.processes = processes != nullptr ? processes_of(processes, of) : processes_of(old_processes, of);
  }
};

Nvml::Nvml(std::unique_ptr<Functions> functions) : functions_(std::move(functions)) {}

Nvml::~Nvml() { functions_->shutdown(); }  // the library stays loaded: its threads may still be in it

std::unique_ptr<Nvml> Nvml::open(std::string& why, std::string library) {
  if (library.empty()) {
    const char* named = std::getenv("FUSION_NVML");
    library = named != nullptr && *named != '\0' ? named : "libnvidia-ml.so.1";
  }
  auto functions = std::make_unique<Functions>();
  functions->library = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (functions->library == nullptr) {
    const char* text = ::dlerror();
    why = "NVIDIA's management library is not there (" + std::string(text != nullptr ? text : library) + "); GPUs, if there are any, are not watched";
    return nullptr;
  }
  if (const std::string missing = functions->find_all(); !missing.empty()) {
    why = library + " is no management library that can be used: " + missing;
    return nullptr;
  }
  if (const Return code = functions->init(); code != kSuccess) {
    why = library + " does not start: " + functions->error_text(code);
    return nullptr;
  }
  return std::unique_ptr<Nvml>(new Nvml(std::move(functions)));
}

std::vector<std::string> Nvml::gpus() const {
  const Functions& f = *functions_;
  std::vector<std::string> ids;
  unsigned n = 0;
  if (f.count(&n) != kSuccess) return ids;
  for (unsigned i = 0; i < n; ++i) {
    Handle gpu = nullptr;
    ids.push_back(f.by_index(i, &gpu) == kSuccess ? f.text(f.id, gpu) : "");
  }
  return ids;
}

std::vector<std::string> Nvml::slices(const std::string& gpu) const {
  const Functions& f = *functions_;
  std::vector<std::string> ids;
  Handle whole = nullptr, slice = nullptr;
  unsigned most = 0;
  if (f.most_slices == nullptr || f.slice == nullptr || f.by_id(gpu.c_str(), &whole) != kSuccess) return ids;
  if (f.most_slices(whole, &most) != kSuccess) return ids;
  for (unsigned i = 0; i < most; ++i) {
    if (f.slice(whole, i, &slice) == kSuccess) ids.push_back(f.text(f.id, slice));
  }
  return ids;
}

GpuReading Nvml::read(const std::string& id) const {
  const Functions& f = *functions_;
  GpuReading reading;
  reading.id = id;
  Handle device = nullptr;
  if (const Return code = f.by_id(id.c_str(), &device); code != kSuccess) {
    reading.lost = is_gone(code);
    reading.problem = id + (reading.lost ? " is not there any more: " : " cannot be read: ") + f.error_text(code);
    return reading;
  }
  f.fill(device, reading);
  return reading;
}

}  // namespace fusion
