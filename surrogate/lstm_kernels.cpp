#include "surrogate/lstm_kernels.h"

namespace fusion {

extern const LstmKernels kLstmKernelsPortable;
#ifdef FUSION_X86_KERNELS
extern const LstmKernels kLstmKernelsAvx2;
extern const LstmKernels kLstmKernelsAvx512;
#endif

std::vector<const LstmKernels*> all_lstm_kernels() {
  std::vector<const LstmKernels*> sets{&kLstmKernelsPortable};
#ifdef FUSION_X86_KERNELS
  if (__builtin_cpu_supports("avx2")) sets.push_back(&kLstmKernelsAvx2);
  if (__builtin_cpu_supports("avx512f")) sets.push_back(&kLstmKernelsAvx512);
#endif
  return sets;
}

const LstmKernels& lstm_kernels() {
  static const LstmKernels& widest = *all_lstm_kernels().back();
  return widest;
}

}  // namespace fusion
