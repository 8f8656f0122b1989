#define FUSION_PLAIN_SET avx2
#include "workers/train/plain_kernels_inline.h"
