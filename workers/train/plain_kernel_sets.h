#pragma once

#include "workers/train/plain_kernels.h"

namespace fusion::plain {

/// The sets by name, for the choice and for tests. Call only what the processor has; avx2 and avx512 are there on x86-64 only.
template <typename T>
const Kernels<T>& portable_kernels();
template <typename T>
const Kernels<T>& avx2_kernels();
template <typename T>
const Kernels<T>& avx512_kernels();

}  // namespace fusion::plain
