#pragma once

#include <sys/types.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>

#include "tools/bench/shape.h"

namespace fusion::bench {

/// tools/bench/naive_loop.py: the naive loop in Python, in a child that stays for all rounds of a shape. It makes features of the same
/// sizes itself.
class PythonLoop {
 public:
  /// Starts the child and waits until it has warmed up. nullptr, and a sentence on stderr, where that Python has no torch.
  static std::unique_ptr<PythonLoop> start(const std::string& python, const std::string& script, const Shape& shape,
                                           std::span<const Architecture> architectures);
  ~PythonLoop();
  PythonLoop(const PythonLoop&) = delete;
  PythonLoop& operator=(const PythonLoop&) = delete;

  /// The next `steps` batches of every architecture: CPU seconds per step. Throws Error if the child has ended.
  double run(std::int64_t steps);

 private:
  PythonLoop(pid_t child, std::FILE* to, std::FILE* from) : child_(child), to_(to), from_(from) {}
  std::string line();

  pid_t child_;
  std::FILE* to_;
  std::FILE* from_;
};

}  // namespace fusion::bench
