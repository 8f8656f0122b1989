#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tools/bench/shape.h"

namespace fusion::bench {

/// Prints, for each shape, what a step of one candidate costs in a pack of `pack` by the stacked engine on `device` (by the clock, over an
/// epoch with everything `train_pack` does), beside one CPU core's plain engine and naive LibTorch loop (CPU time); then each kernel's time
/// beside its bytes and operations.
void print_gpu_tables(const std::vector<Shape>& shapes, std::size_t pack, const std::string& device);

}  // namespace fusion::bench
