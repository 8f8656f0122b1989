#pragma once

#include <algorithm>
#include <cstdlib>

namespace fusion::testing {

/// How many times slower the programs of this build are than optimised ones: 1, and 4 under sanitizers (CMake's FUSION_SLOWNESS, which ctest hands
/// on). For what has to last until another program has been started and has done something.
inline int slowness() {
  const char* given = std::getenv("FUSION_SLOWNESS");
  return given == nullptr ? 1 : std::max(1, std::atoi(given));
}

}  // namespace fusion::testing
