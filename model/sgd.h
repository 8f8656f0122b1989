#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/flat_tensors.h"

namespace fusion {

struct SgdOptions {
  double momentum = 0.9;
  double dampening = 0;  ///< 0.9 in the reference's script for the baseline heads
  double weight_decay = 0;
};

/// Gradient descent with momentum, with the arithmetic of torch.optim.SGD:
///     g <- g + wd theta;  b <- g at the first step, else momentum b + (1 - dampening) g;  theta <- theta - lr b
/// A parameter whose gradient is undefined is skipped. Not thread-safe.
class Sgd {
 public:
  /// The parameters must be contiguous leaves; they are kept.
  explicit Sgd(std::vector<at::Tensor> parameters, const SgdOptions& options = {});

  void step(double learning_rate);
  void clear_gradients();

  /// "momentum" [elements of all parameters], "steps" [parameters] (int64); see Adam::state.
  NamedTensors state() const;
  void load_state(const NamedTensors& state);

 private:
  struct Slot {
    at::Tensor parameter, momentum;
    std::int64_t steps = 0;
  };
  at::Tensor momentum_;
  std::vector<Slot> slots_;
  SgdOptions options_;
};

}  // namespace fusion
