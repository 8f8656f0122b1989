#include "model/device.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <torch/cuda.h>

#include <charconv>

#include "base/error.h"

namespace fusion {

int gpu_index(const std::string& text) {
  if (text == "cpu") return -1;
  int index = 0;
  const std::string prefix = "cuda:";
  if (text.rfind(prefix, 0) == 0) {
    const char* const end = text.data() + text.size();
    const auto [stop, problem] = std::from_chars(text.data() + prefix.size(), end, index);
    if (problem != std::errc{} || stop != end || index < 0) index = -1;
  } else if (text != "cuda") {
    index = -1;
  }
  if (index < 0) throw ModelError("device: expected cpu, cuda or cuda:<number>, got \"" + text + "\"");
  return index;
}

c10::Device device_from_text(const std::string& text) {
  const int index = gpu_index(text);
  if (index < 0) return c10::Device(c10::kCPU);
  const std::size_t devices = torch::cuda::device_count();
  if (devices == 0) {
    throw ModelError("device: \"" + text + "\" was asked for, but this LibTorch has no CUDA device; cpu is there");
  }
  if (static_cast<std::size_t>(index) >= devices) {
    throw ModelError("device: \"" + text + "\" was asked for, but there are only " + std::to_string(devices) +
                     " CUDA devices, numbered from 0");
  }
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

void prepare_training_thread() {
  at::set_num_threads(1);
  at::globalContext().setFlushDenormal(true);
  // OpenBLAS is loaded behind LibTorch; another BLAS does not have the function.
  using SetThreads = void (*)(int);
  if (auto* const set_threads = reinterpret_cast<SetThreads>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"))) set_threads(1);
}

}  // namespace fusion
