#define FUSION_PLAIN_SET portable
#include "workers/train/plain_kernels_inline.h"
