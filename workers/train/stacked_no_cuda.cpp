// What stands in for stacked_cuda.cu in a build without nvcc.
#include "base/error.h"
#include "workers/train/stacked_backend.h"

namespace fusion::stacked {

template <typename T>
std::unique_ptr<Backend<T>> make_cuda_backend(int index) {
  throw ModelError("device: \"cuda:" + std::to_string(index) +
                   "\" was asked for, but this program was built without CUDA; configure the build where nvcc is found, or use cpu");
}

template std::unique_ptr<Backend<float>> make_cuda_backend<float>(int);
template std::unique_ptr<Backend<double>> make_cuda_backend<double>(int);

int cuda_devices() { return 0; }

}  // namespace fusion::stacked
