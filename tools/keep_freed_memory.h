#pragma once

#include <cstdlib>  // defines __GLIBC__ where that is the C library
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace fusion {

/// A network's activations are large and short-lived. By default the C library hands such memory back to the system at every step and
/// takes it again page by page, which on AV-MNIST's audio costs more than half of the time. To be called before any thread starts.
inline void keep_freed_memory() {
#ifdef __GLIBC__
  ::mallopt(M_ARENA_MAX, 1);
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 2'000'000'000);
  ::mallopt(M_TOP_PAD, 64 << 20);
#endif
}

}  // namespace fusion
