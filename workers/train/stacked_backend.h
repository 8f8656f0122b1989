#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "workers/train/stacked_tasks.h"

namespace fusion::stacked {

/// The device has no memory left for what was asked; what is there is as it was.
class OutOfMemory : public std::bad_alloc {
 public:
  const char* what() const noexcept override { return "the device has no memory left"; }
};

/// A device the stacked engine trains on: memory, copies, and the kernels over tables of tasks (workers/train/stacked_bodies.h says what
/// each does). Everything runs in the order of the calls; `download` waits for what was asked before. All pointers are the device's
/// unless a name says host. Whatever goes wrong but memory is thrown as Error. Not thread-safe.
template <typename T>
class Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend() = default;

  virtual std::string device() const = 0;  ///< "cpu", "cuda:0"
  /// Memory that is free now; none where it is of no account.
  virtual std::optional<std::int64_t> free_bytes() const = 0;
  /// Zeros, aligned to 256 bytes at least. Throws OutOfMemory.
  virtual void* allocate(std::int64_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  /// Whether kernels can read the host's memory as it is; then features need no copy.
  virtual bool reads_host_memory() const = 0;
  /// `host` may be reused when it returns.
  virtual void upload(void* to, const void* host, std::int64_t bytes) = 0;
  virtual void download(void* host, const void* from, std::int64_t bytes) = 0;
  virtual void copy(void* to, const void* from, std::int64_t bytes) = 0;

  virtual void product(const ProductList<T>& list, const Scene<T>& scene) = 0;
  virtual void activate(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) = 0;
  virtual void activate_back(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) = 0;
  virtual void normalise(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) = 0;
  virtual void normalise_back(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) = 0;
  virtual void softmax_loss(const HeadTask<T>* tasks, std::int32_t count, const Scene<T>& scene) = 0;
  virtual void choose_class(const HeadTask<T>* tasks, std::int32_t count, const Scene<T>& scene) = 0;
  virtual void share_gradient(const ShareTask<T>* tasks, std::int32_t count, const Scene<T>& scene) = 0;
  /// `most`: the largest count of a task.
  virtual void adam(const AdamTask<T>* tasks, std::int32_t count, std::int64_t most, const Scene<T>& scene) = 0;
  /// Moves on by one step.
  virtual void advance(const Scene<T>& scene) = 0;
  /// sums [steps][trials] of the chunk's losses; the chunk began at row `first` of `end`.
  virtual void sum_losses(const Scene<T>& scene, std::int32_t steps, std::int64_t first, std::int64_t end, double* sums) = 0;

  /// Does `work`, some calls of the functions above that stay the same from time to time, `times` times. What it did is remembered (on a
  /// GPU as a CUDA graph) under `token`, a new number for new work.
  virtual void repeat(std::int32_t times, std::uint64_t token, const std::function<void()>& work) = 0;
};

/// Memory of a backend.
template <typename T>
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(Backend<T>& backend, std::int64_t bytes) : backend_(&backend), bytes_(bytes), memory_(backend.allocate(bytes)) {}
  DeviceMemory(DeviceMemory&& other) noexcept
      : backend_(other.backend_), bytes_(std::exchange(other.bytes_, 0)), memory_(std::exchange(other.memory_, nullptr)) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(bytes_, other.bytes_);
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~DeviceMemory() {
    if (memory_) backend_->release(memory_);
  }
  void* data() const { return memory_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  Backend<T>* backend_ = nullptr;
  std::int64_t bytes_ = 0;
  void* memory_ = nullptr;
};

/// How the CPU multiplies: by LibTorch's products, or by the block programs that a GPU runs, thread by thread, to test these.
enum class CpuProducts : std::uint8_t { torch, blocks };
template <typename T>
std::unique_ptr<Backend<T>> make_cpu_backend(CpuProducts products = CpuProducts::torch);

/// GPU number `index` through the CUDA runtime, whatever LibTorch knows of GPUs. Throws ModelError with a sentence where the program was
/// built without CUDA, where there is no driver, and where there is no such GPU.
template <typename T>
std::unique_ptr<Backend<T>> make_cuda_backend(int index);
/// GPUs that `make_cuda_backend` knows; 0 where it would throw for each.
int cuda_devices();

}  // namespace fusion::stacked
