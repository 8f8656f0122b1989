#include "workers/train/plain_kernels.h"

#include <cstdlib>
#include <string>

#include "base/error.h"
#include "workers/train/plain_kernel_sets.h"

namespace fusion::plain {
namespace {

#ifdef FUSION_X86_KERNELS
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

template <typename T>
const Kernels<T>& choose() {
  const char* const asked = std::getenv("FUSION_PLAIN_KERNELS");
  const std::string name = asked ? asked : "";
#ifdef FUSION_X86_KERNELS
  if (has_avx512() && (name.empty() || name == "avx512")) return avx512_kernels<T>();
  if (has_avx2() && (name.empty() || name == "avx2")) return avx2_kernels<T>();
#endif
  if (name.empty() || name == "portable") return portable_kernels<T>();
  throw ModelError("FUSION_PLAIN_KERNELS: expected avx512, avx2 or portable, and one that this processor has, got \"" + name + "\"");
}

}  // namespace

template <>
const Kernels<float>& kernels<float>() {
  static const Kernels<float>& chosen = choose<float>();
  return chosen;
}
template <>
const Kernels<double>& kernels<double>() {
  static const Kernels<double>& chosen = choose<double>();
  return chosen;
}

}  // namespace fusion::plain
