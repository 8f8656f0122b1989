#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "cuda_runtime.h"

dim3 threadIdx, blockIdx, blockDim;

struct EmulatedGraph {
  std::vector<std::function<void()>> work;
};
struct EmulatedStream {
  std::unique_ptr<EmulatedGraph> captured;  ///< while it is
};

namespace {

constexpr std::size_t kStackBytes = 64 << 10;

/// One thread of the block that runs. Begun once, by ucontext; from then on it is switched to and from by setjmp, which asks nothing of the
/// system, and does block after block.
struct Fiber {
  ucontext_t begin{};
  jmp_buf place{};
  std::vector<char> stack = std::vector<char>(kStackBytes);
  bool begun = false, ended = false;
};
std::vector<std::unique_ptr<Fiber>> fibers;
jmp_buf scheduler;
Fiber* running = nullptr;  ///< null: threads run one after the other, without fibers
const std::function<void()>* body = nullptr;
bool met_barrier = false;

std::map<void*, std::size_t> sizes;  // of the device's memory
std::set<const void*> without_barriers;

void back_to_scheduler() {
  if (_setjmp(running->place) == 0) _longjmp(scheduler, 1);
}

void run_fiber() {
  while (true) {
    (*body)();
    running->ended = true;
    back_to_scheduler();
  }
}

void switch_to(Fiber& fiber) {
  running = &fiber;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.begun) _longjmp(fiber.place, 1);
  fiber.begun = true;
  setcontext(&fiber.begin);
}

void make_fibers(unsigned threads) {
  while (fibers.size() < threads) {
    Fiber& fiber = *fibers.emplace_back(std::make_unique<Fiber>());
    getcontext(&fiber.begin);
    fiber.begin.uc_stack.ss_sp = fiber.stack.data();
    fiber.begin.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.begin, run_fiber, 0);
  }
}

/// All threads from barrier to barrier, until all have ended.
void run_block_in_turns(unsigned threads) {
  make_fibers(threads);
  for (unsigned t = 0; t < threads; ++t) fibers[t]->ended = false;
  for (unsigned left = threads; left > 0;) {
    for (unsigned t = 0; t < threads; ++t) {
      if (fibers[t]->ended) continue;
      threadIdx = dim3(t, 0, 0);
      switch_to(*fibers[t]);
      if (fibers[t]->ended) --left;
    }
  }
  running = nullptr;
}

void run_kernel(const void* key, dim3 blocks, dim3 threads, const std::function<void()>& thread) {
  const bool in_turns = !without_barriers.contains(key);
  body = &thread;
  blockDim = threads;
  met_barrier = false;
  for (unsigned y = 0; y < blocks.y; ++y) {
    for (unsigned x = 0; x < blocks.x; ++x) {
      blockIdx = dim3(x, y, 0);
      if (in_turns) {
        run_block_in_turns(threads.x);
        continue;
      }
      for (unsigned t = 0; t < threads.x; ++t) {
        threadIdx = dim3(t, 0, 0);
        thread();
      }
    }
  }
  if (!met_barrier) without_barriers.insert(key);
}

bool on_device(const void* memory, std::size_t bytes) {
  auto next = sizes.upper_bound(const_cast<void*>(memory));  // NOLINT: a key
  if (next == sizes.begin()) return false;
  --next;
  const auto* const begin = static_cast<const char*>(next->first);
  return static_cast<const char*>(memory) + bytes <= begin + next->second;
}

}  // namespace

void __syncthreads() {
  met_barrier = true;
  if (!running) std::abort();  // a kernel that was taken for one without barriers
  back_to_scheduler();
}

cudaError_t emulate_launch(const void* key, dim3 blocks, dim3 threads, std::function<void()> thread, cudaStream_t stream) {
  if (blocks.x == 0 || blocks.y == 0 || blocks.y > 65'535 || threads.x == 0 || threads.x > 1024) return cudaErrorIllegalState;
  if (stream->captured) {
    stream->captured->work.push_back([=] { run_kernel(key, blocks, threads, thread); });
  } else {
    run_kernel(key, blocks, threads, thread);
  }
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "out of memory" : "illegal use"; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorNoDevice; }
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = *total = std::size_t{1} << 30;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  *memory = bytes > (std::size_t{1} << 30) ? nullptr : std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!*memory) return cudaErrorMemoryAllocation;
  std::memset(*memory, 0xFF, bytes);  // NaN: who forgets to clear it will see
  sizes[*memory] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  sizes.erase(memory);
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  if (stream->captured || !on_device(memory, bytes)) return cudaErrorIllegalState;
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
  if (stream->captured || on_device(to, bytes) != to_device || on_device(from, bytes) != from_device) return cudaErrorIllegalState;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new EmulatedStream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return stream->captured ? cudaErrorIllegalState : cudaSuccess; }

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream->captured) return cudaErrorIllegalState;
  stream->captured = std::make_unique<EmulatedGraph>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!stream->captured) return cudaErrorIllegalState;
  *graph = stream->captured.release();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new EmulatedGraph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (stream->captured) return cudaErrorIllegalState;
  for (const auto& work : exec->work) work();
  return cudaSuccess;
}
