#pragma once

namespace fusion::bench {

/// Floating-point operations per CPU second of this core in a 512-cube float32 product by LibTorch's BLAS, over about 30 ms.
double gemm_rate();

}  // namespace fusion::bench
