#pragma once

#include <cstdint>

namespace fusion {

/// What the kernel says of this process; zero where it does not say.
struct ProcessFigures {
  double cpu_s = 0;                ///< user and system time of all its threads
  std::uint64_t resident_bytes = 0;
  std::uint64_t open_files = 0, most_files = 0;
  std::uint64_t threads = 0;

  static ProcessFigures now();
};

}  // namespace fusion
