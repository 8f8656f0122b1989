#define FUSION_KERNEL_SET kLstmKernelsPortable
#define FUSION_KERNEL_NAME "portable"
#define FUSION_KERNEL_WIDTH 4
#define FUSION_KERNEL_ROWS 4
#include "surrogate/lstm_kernels_inline.h"
