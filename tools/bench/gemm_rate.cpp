#include "tools/bench/gemm_rate.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>

#include "model/torch_compat.h"
#include "tools/bench/cpu_clock.h"

namespace fusion::bench {

double gemm_rate() {
  constexpr int kSide = 512, kProducts = 12;
  const at::NoGradGuard no_grad;
  static const at::Tensor a = at::rand({kSide, kSide}), b = at::rand({kSide, kSide});
  static at::Tensor c = at::mm(a, b);
  at::mm_out(c, a, b);  // brings the operands back into the cache
  const double begin = cpu_seconds();
  for (int i = 0; i < kProducts; ++i) at::mm_out(c, a, b);
  return kProducts * 2.0 * kSide * kSide * kSide / (cpu_seconds() - begin);
}

}  // namespace fusion::bench
