// The stacked engine on a GPU: the bodies of stacked_bodies.h as kernels on one stream of the CUDA runtime, steps as one CUDA graph. Uses
// neither LibTorch nor any other library, so it works beside a LibTorch that knows no GPU; the runtime is linked in and looks for the
// driver when it is asked for a device.
#include <cuda_runtime.h>

#include <string>
#include <type_traits>

#include "base/error.h"
#include "workers/train/stacked_backend.h"
#include "workers/train/stacked_bodies.h"

namespace fusion::stacked {
namespace {

constexpr int kThreads = 256;

void check(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  throw ModelError(std::string("CUDA: ") + what + ": " + cudaGetErrorString(result));
}

unsigned blocks_for(std::int64_t elements) { return static_cast<unsigned>((elements + kThreads - 1) / kThreads); }

__device__ std::int64_t thread_number() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

/// The threads of a block go through a program's phases together.
template <typename Program>
class ThreadBlock {
 public:
  FUSION_BOTH explicit ThreadBlock(typename Program::Shared& shared) : shared_(shared) {}
  template <typename Phase>
  FUSION_BOTH void each(Phase phase) {
#if defined(__CUDA_ARCH__)
    phase(static_cast<int>(threadIdx.x));
    __syncthreads();
#endif
  }
  FUSION_BOTH typename Program::Shared& shared() { return shared_; }
  FUSION_BOTH typename Program::Own& own(int) { return own_; }

 private:
  typename Program::Shared& shared_;
  typename Program::Own own_;
};

// ---- kernels: one row of the grid per task

template <typename T, typename Program>
__global__ void __launch_bounds__(Program::kThreads) product_kernel(ProductList<T> list, const BlockRef* refs, Scene<T> scene) {
  __shared__ typename Program::Shared shared;
  ThreadBlock<Program> block(shared);
  Program::run(list, refs[blockIdx.x], scene, block);
}

template <typename T>
__global__ void __launch_bounds__(ShareGradient<T>::kThreads) share_kernel(const ShareTask<T>* tasks, Scene<T> scene) {
  __shared__ typename ShareGradient<T>::Shared shared;
  ThreadBlock<ShareGradient<T>> block(shared);
  ShareGradient<T>::run(tasks[blockIdx.x], scene, block);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) activate_kernel(const StepTask<T>* tasks, Scene<T> scene) {
  const StepTask<T> task = tasks[blockIdx.y];
  const std::int64_t quad = thread_number();
  if (scene.live[task.trial] && quad < quads(batch_rows(*scene.position), scene.width)) activate(task, scene, quad);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) activate_back_kernel(const StepTask<T>* tasks, Scene<T> scene) {
  const StepTask<T> task = tasks[blockIdx.y];
  const std::int64_t quad = thread_number();
  if (scene.live[task.trial] && quad < quads(batch_rows(*scene.position), scene.width)) activate_back(task, scene, quad);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) normalise_kernel(const StepTask<T>* tasks, Scene<T> scene) {
  const StepTask<T> task = tasks[blockIdx.y];
  const std::int64_t column = thread_number();
  if (scene.live[task.trial] && column < scene.width) normalise(task, scene, static_cast<std::int32_t>(column));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) normalise_back_kernel(const StepTask<T>* tasks, Scene<T> scene) {
  const StepTask<T> task = tasks[blockIdx.y];
  const std::int64_t column = thread_number();
  if (scene.live[task.trial] && column < scene.width) normalise_back(task, scene, static_cast<std::int32_t>(column));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) softmax_loss_kernel(const HeadTask<T>* tasks, Scene<T> scene) {
  const HeadTask<T> task = tasks[blockIdx.y];
  const std::int64_t row = thread_number();
  if (scene.live[task.trial] && row < batch_rows(*scene.position)) softmax_loss(task, scene, static_cast<std::int32_t>(row));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) choose_class_kernel(const HeadTask<T>* tasks, Scene<T> scene) {
  const HeadTask<T> task = tasks[blockIdx.y];
  const std::int64_t row = thread_number();
  if (scene.live[task.trial] && row < batch_rows(*scene.position)) choose_class(task, scene, static_cast<std::int32_t>(row));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) adam_kernel(const AdamTask<T>* tasks, Scene<T> scene) {
  const AdamTask<T> task = tasks[blockIdx.y];
  const std::int64_t i = thread_number();
  if (scene.live[task.trial] && i < task.count) adam(task, scene, i);
}

template <typename T>
__global__ void advance_kernel(Scene<T> scene) {
  advance(*scene.position);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    sum_losses_kernel(Scene<T> scene, std::int32_t steps, std::int64_t first, std::int64_t end, double* sums) {
  const std::int64_t i = thread_number();
  if (i >= static_cast<std::int64_t>(steps) * scene.trials) return;
  const std::int32_t step = static_cast<std::int32_t>(i / scene.trials), trial = static_cast<std::int32_t>(i % scene.trials);
  const std::int64_t left = end - first - static_cast<std::int64_t>(step) * scene.rows;
  const std::int32_t rows = left < scene.rows ? static_cast<std::int32_t>(left) : scene.rows;
  sums[i] = scene.live[trial] ? summed_loss(scene, step, trial, rows) : 0.0;
}

// ---- the backend

template <typename T>
class CudaBackend final : public Backend<T> {
 public:
  explicit CudaBackend(int index) : index_(index) {
    check(cudaSetDevice(index), "the GPU could not be chosen");
    cudaFuncAttributes attributes{};
    const cudaError_t kernels = cudaFuncGetAttributes(&attributes, advance_kernel<T>);
    if (kernels != cudaSuccess) {
      throw ModelError("device: \"" + device() + "\" was asked for, but its kernels cannot be loaded (" + cudaGetErrorString(kernels) +
                       "): configure the build with CMAKE_CUDA_ARCHITECTURES for this GPU, or install a newer driver");
    }
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream could not be made");
  }
  ~CudaBackend() override {
    forget();
    cudaStreamDestroy(stream_);
  }

  std::string device() const override { return "cuda:" + std::to_string(index_); }
  std::optional<std::int64_t> free_bytes() const override {
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "the free memory is not known");
    return static_cast<std::int64_t>(free);
  }
  void* allocate(std::int64_t bytes) override {
    void* memory = nullptr;
    const std::size_t count = bytes > 0 ? static_cast<std::size_t>(bytes) : 1;
    const cudaError_t result = cudaMalloc(&memory, count);
    if (result == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // it is dealt with
      throw OutOfMemory();
    }
    check(result, "memory could not be taken");
    check(cudaMemsetAsync(memory, 0, count, stream_), "memory could not be cleared");
    return memory;
  }
  void release(void* memory) noexcept override { cudaFree(memory); }  // waits for the kernels that may use it
  bool reads_host_memory() const override { return false; }
  void upload(void* to, const void* host, std::int64_t bytes) override { transfer(to, host, bytes, cudaMemcpyHostToDevice); }
  void download(void* host, const void* from, std::int64_t bytes) override { transfer(host, from, bytes, cudaMemcpyDeviceToHost); }
  void copy(void* to, const void* from, std::int64_t bytes) override {
    if (bytes > 0) check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, stream_), "a copy failed");
  }

  void product(const ProductList<T>& list, const Scene<T>& scene) override {
    const auto blocks = [](std::int32_t count) { return dim3(static_cast<unsigned>(count)); };
    launch(product_kernel<T, NarrowProduct<T>>, blocks(list.narrow_count), NarrowProduct<T>::kThreads, list, list.narrow, scene);
    launch(product_kernel<T, WideProduct<T>>, blocks(list.wide_count), WideProduct<T>::kThreads, list, list.wide, scene);
  }
  void activate(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    launch(activate_kernel<T>, grid(quads(scene.rows, scene.width), count), kThreads, tasks, scene);
  }
  void activate_back(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    launch(activate_back_kernel<T>, grid(quads(scene.rows, scene.width), count), kThreads, tasks, scene);
  }
  void normalise(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    launch(normalise_kernel<T>, grid(scene.width, count), kThreads, tasks, scene);
  }
  void normalise_back(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    launch(normalise_back_kernel<T>, grid(scene.width, count), kThreads, tasks, scene);
  }
  void softmax_loss(const HeadTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    launch(softmax_loss_kernel<T>, grid(scene.rows, count), kThreads, tasks, scene);
  }
  void choose_class(const HeadTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    launch(choose_class_kernel<T>, grid(scene.rows, count), kThreads, tasks, scene);
  }
  void share_gradient(const ShareTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    launch(share_kernel<T>, dim3(static_cast<unsigned>(count)), ShareGradient<T>::kThreads, tasks, scene);
  }
  void adam(const AdamTask<T>* tasks, std::int32_t count, std::int64_t most, const Scene<T>& scene) override {
    launch(adam_kernel<T>, grid(most, count), kThreads, tasks, scene);
  }
  void advance(const Scene<T>& scene) override { launch(advance_kernel<T>, dim3(1), 1, scene); }
  void sum_losses(const Scene<T>& scene, std::int32_t steps, std::int64_t first, std::int64_t end, double* sums) override {
    const std::int64_t count = static_cast<std::int64_t>(steps) * scene.trials;
    launch(sum_losses_kernel<T>, grid(count, 1), kThreads, scene, steps, first, end, sums);
  }

  // New work is done once as it is, which also loads its kernels; the graph is for what follows.
  void repeat(std::int32_t times, std::uint64_t token, const std::function<void()>& work) override {
    if (times > 0 && token != token_) {
      forget();
      work();
      token_ = token;
      --times;
    }
    if (times > 0 && !graph_) capture(work);
    for (std::int32_t i = 0; i < times; ++i) check(cudaGraphLaunch(graph_, stream_), "a graph could not be launched");
  }

 private:
  static dim3 grid(std::int64_t elements, std::int32_t tasks) { return dim3(blocks_for(elements), static_cast<unsigned>(tasks)); }
  template <typename... Parameters>
  void launch(void (*kernel)(Parameters...), dim3 blocks, int threads, std::common_type_t<Parameters>... arguments) {
    if (blocks.x == 0 || blocks.y == 0) return;
    void* pointers[] = {&arguments...};
    check(cudaLaunchKernel(kernel, blocks, dim3(static_cast<unsigned>(threads)), pointers, 0, stream_), "a kernel was not launched");
  }
  /// The host's side may be reused, or read, afterwards, whatever kind of memory it is.
  void transfer(void* to, const void* from, std::int64_t bytes, cudaMemcpyKind kind) {
    if (bytes <= 0) return;
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), kind, stream_), "a copy failed");
    check(cudaStreamSynchronize(stream_), "the work before a copy failed");
  }
  void capture(const std::function<void()>& work) {
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "a graph could not be begun");
    cudaGraph_t graph = nullptr;
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream_, &graph), "a graph could not be ended");
    const cudaError_t result = cudaGraphInstantiateWithFlags(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    if (result != cudaSuccess) graph_ = nullptr;
    check(result, "a graph could not be made");
  }
  void forget() {
    if (graph_) cudaGraphExecDestroy(graph_);
    graph_ = nullptr;
    token_ = 0;
  }

  const int index_;
  cudaStream_t stream_ = nullptr;
  std::uint64_t token_ = 0;  ///< of the work that was done last
  cudaGraphExec_t graph_ = nullptr;
};

/// 0 with the reason where there is none.
int count_devices(std::string& reason) {
  int devices = 0;
  const cudaError_t result = cudaGetDeviceCount(&devices);
  if (result == cudaSuccess && devices > 0) return devices;
  cudaGetLastError();
  if (result == cudaErrorInsufficientDriver) {
    reason = "there is no NVIDIA driver, or one that is too old for CUDA " + std::to_string(CUDART_VERSION / 1000) + "." +
             std::to_string(CUDART_VERSION % 1000 / 10);
  } else {
    reason = result == cudaSuccess || result == cudaErrorNoDevice ? "there is none" : cudaGetErrorString(result);
  }
  return 0;
}

}  // namespace

template <typename T>
std::unique_ptr<Backend<T>> make_cuda_backend(int index) {
  std::string reason;
  const int devices = count_devices(reason);
  const std::string asked = "device: \"cuda:" + std::to_string(index) + "\" was asked for, but ";
  if (devices == 0) throw ModelError(asked + "no GPU can be used: " + reason + "; cpu is there");
  if (index >= devices) throw ModelError(asked + "there are only " + std::to_string(devices) + " GPUs, numbered from 0");
  return std::make_unique<CudaBackend<T>>(index);
}

template std::unique_ptr<Backend<float>> make_cuda_backend<float>(int);
template std::unique_ptr<Backend<double>> make_cuda_backend<double>(int);

int cuda_devices() {
  std::string reason;
  return count_devices(reason);
}

}  // namespace fusion::stacked
