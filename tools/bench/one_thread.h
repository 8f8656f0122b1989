#pragma once

#include <unistd.h>

#include <cstdlib>

namespace fusion::bench {

/// Pins every library's pool to one thread. They read their thread counts when they are loaded, before main: so set them and begin
/// again. Children inherit it. To be called first in main.
inline void begin_again_with_one_thread(char** argv) {
  if (std::getenv("FUSION_BENCH_PINNED") != nullptr) return;
  for (const char* const name : {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "FUSION_BENCH_PINNED"}) {
    ::setenv(name, "1", 1);
  }
  ::execv("/proc/self/exe", argv);
  std::abort();  // a figure that was measured without pinning would mean nothing
}

}  // namespace fusion::bench
