#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/bench/shape.h"

namespace fusion::bench {

/// One kind of kernel in one training step of a pack by the stacked engine.
struct KernelFigures {
  std::string name;
  int launches = 0;
  double seconds = 0;     ///< of all launches of a step
  double operations = 0;  ///< floating-point ones that the maths needs
  double bytes = 0;       ///< of memory, if every array is read or written once; taps once for all trials
};

/// Times each kernel by itself, some launches in a row, on the first batch of a pack of `trials` trials. `device`: "cpu" or "cuda:<n>".
std::vector<KernelFigures> roofline(const Shape& shape, std::size_t trials, const std::string& device);

}  // namespace fusion::bench
