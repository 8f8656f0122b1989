// The functions of NVIDIA's management library that we use, over a text file that a test writes: one device a line,
//   <id> <parent or -> <total MB> <free MB> <utilisation> <degrees> <return code of reading> <mig mode> [pid:MB ...]
// read anew at each call, so that a GPU may fill up, or be lost, while it is watched. A line's number is its handle.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace {

struct Line {
  std::string id, parent;
  unsigned long long total = 0, free = 0;
  unsigned busy = 0, degrees = 0, mig = 0;
  int code = 0;
  std::vector<std::pair<unsigned, unsigned long long>> processes;
};

std::vector<Line> lines() {
  std::vector<Line> all;
  const char* file = std::getenv("FAKE_NVML");
  std::ifstream stream(file != nullptr ? file : "");
  for (std::string text; std::getline(stream, text);) {
    std::istringstream words(text);
    Line line;
    words >> line.id >> line.parent >> line.total >> line.free >> line.busy >> line.degrees >> line.code >> line.mig;
    for (std::string process; words >> process;) {
      line.processes.emplace_back(std::stoul(process), std::stoull(process.substr(process.find(':') + 1)));
    }
    all.push_back(line);
  }
  return all;
}

using Handle = void*;
Handle handle_of(std::size_t line) { return reinterpret_cast<Handle>(line + 1); }

/// A device that was there when its handle was given may be gone now.
bool find(Handle handle, Line& line) {
  const std::vector<Line> all = lines();
  const auto at = reinterpret_cast<std::uintptr_t>(handle) - 1;
  if (at >= all.size()) return false;
  line = all[at];
  return true;
}

int text(char* buffer, unsigned size, const std::string& value) {
  if (value.size() + 1 > size) return 7;
  std::memcpy(buffer, value.c_str(), value.size() + 1);
  return 0;
}

}  // namespace

extern "C" {

struct FakeMemory {
  unsigned long long total, free, used;
};
struct FakeUtilization {
  unsigned gpu, memory;
};
struct FakeProcess {
  unsigned pid;
  unsigned long long used;
  unsigned gpu_instance, compute_instance;
};

int nvmlInit_v2() { return std::getenv("FAKE_NVML_INIT") != nullptr ? std::atoi(std::getenv("FAKE_NVML_INIT")) : 0; }
int nvmlShutdown() { return 0; }
const char* nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : code == 6 ? "Not Found" : code == 9 ? "Driver Not Loaded" : "Unknown Error"; }

int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 0;
  for (const Line& line : lines()) *count += line.parent == "-" ? 1 : 0;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle* handle) {
  const std::vector<Line> all = lines();
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].parent != "-" || index-- != 0) continue;
    *handle = handle_of(i);
    return 0;
  }
  return 2;
}
int nvmlDeviceGetHandleByUUID(const char* id, Handle* handle) {
  const std::vector<Line> all = lines();
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].id != id) continue;
    *handle = handle_of(i);
    return 0;
  }
  return 6;
}
int nvmlDeviceGetName(Handle handle, char* buffer, unsigned size) {
  Line line;
  return find(handle, line) ? text(buffer, size, "NVIDIA Fake 1") : 15;
}
int nvmlDeviceGetUUID(Handle handle, char* buffer, unsigned size) {
  Line line;
  return find(handle, line) ? text(buffer, size, line.id) : 15;
}
int nvmlDeviceGetMemoryInfo(Handle handle, FakeMemory* memory) {
  Line line;
  if (!find(handle, line)) return 15;
  *memory = {line.total << 20, line.free << 20, (line.total - line.free) << 20};
  return line.code;
}
int nvmlDeviceGetUtilizationRates(Handle handle, FakeUtilization* busy) {
  Line line;
  if (!find(handle, line)) return 15;
  if (line.parent != "-") return 3;  // as of a slice
  *busy = {line.busy, 0};
  return 0;
}
int nvmlDeviceGetTemperature(Handle handle, int, unsigned* degrees) {
  Line line;
  if (!find(handle, line)) return 15;
  if (line.parent != "-") return 3;
  *degrees = line.degrees;
  return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Handle handle, unsigned* count, FakeProcess* processes) {
  Line line;
  if (!find(handle, line)) return 15;
  const unsigned room = *count;
  *count = static_cast<unsigned>(line.processes.size());
  if (room < *count) return 7;
  for (unsigned i = 0; i < *count; ++i) processes[i] = {line.processes[i].first, line.processes[i].second << 20, 0, 0};
  return 0;
}
int nvmlDeviceGetMigMode(Handle handle, unsigned* now, unsigned* pending) {
  Line line;
  if (!find(handle, line)) return 15;
  *now = *pending = line.mig;
  return line.parent == "-" ? 0 : 3;
}
int nvmlDeviceGetMaxMigDeviceCount(Handle, unsigned* most) {
  *most = 7;
  return 0;
}
int nvmlDeviceGetMigDeviceHandleByIndex(Handle handle, unsigned index, Handle* slice) {
  Line whole;
  if (!find(handle, whole)) return 15;
  const std::vector<Line> all = lines();
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].parent != whole.id || index-- != 0) continue;
    *slice = handle_of(i);
    return 0;
  }
  return 6;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Handle slice, Handle* whole) {
  Line line;
  if (!find(slice, line) || line.parent == "-") return 2;
  return nvmlDeviceGetHandleByUUID(line.parent.c_str(), whole);
}

}  // extern "C"
