#define FUSION_PLAIN_SET avx512
#include "workers/train/plain_kernels_inline.h"
