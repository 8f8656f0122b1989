// The engine's GPU half as C++, with the CUDA runtime that lies beside this file.
#include "workers/train/stacked_cuda.cu"  // NOLINT: the very file that nvcc compiles
