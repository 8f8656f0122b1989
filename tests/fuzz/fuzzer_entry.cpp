// The entry that libFuzzer calls; FUSION_FUZZ_TARGET names one of targets.h.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  fusion::fuzz::FUSION_FUZZ_TARGET({reinterpret_cast<const char*>(data), bytes});
  return 0;
}
