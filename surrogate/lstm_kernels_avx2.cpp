#define FUSION_KERNEL_SET kLstmKernelsAvx2
#define FUSION_KERNEL_NAME "avx2"
#define FUSION_KERNEL_WIDTH 8
#define FUSION_KERNEL_ROWS 6
#include "surrogate/lstm_kernels_inline.h"
