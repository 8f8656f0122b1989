#pragma once

#include <c10/core/Device.h>

#include <string>

namespace fusion {

/// The number of the GPU in "cuda" (0) or "cuda:<n>", -1 for "cpu", whether it is there or not. Throws ModelError for any other text.
int gpu_index(const std::string& text);

/// "cpu", "cuda" (the first one) or "cuda:<n>" as a device that is there. Throws ModelError with a sentence for any other text, for a
/// LibTorch without CUDA, and for a number past the devices there are.
c10::Device device_from_text(const std::string& text);

/// Makes the calling thread fit for training small networks: one thread in LibTorch and in OpenBLAS (which has a pool of its own and
/// ignores LibTorch's setting), and denormal numbers flushed to zero (dead units drive Adam's moments into them). Call it once in each
/// thread that trains; two workers on two cores are much faster than one worker with two threads.
void prepare_training_thread();

}  // namespace fusion
