#pragma once

#include <time.h>

namespace fusion::bench {

/// CPU seconds of the whole process so far, all threads together: what other programs on the machine take is not in it (but what they
/// do to caches, memory and the other half of a core is).
inline double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace fusion::bench
