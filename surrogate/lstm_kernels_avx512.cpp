#define FUSION_KERNEL_SET kLstmKernelsAvx512
#define FUSION_KERNEL_NAME "avx512"
#define FUSION_KERNEL_WIDTH 16
#define FUSION_KERNEL_ROWS 20  // divides 100 and 400, the default network's
#include "surrogate/lstm_kernels_inline.h"
