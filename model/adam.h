#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/flat_tensors.h"

namespace fusion {

struct AdamOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay = 0;
  bool decoupled = false;  ///< how weights decay: false: Adam's L2, added to the gradient; true: AdamW
};

/// Adam (Kingma and Ba, ICLR 2015), with the arithmetic of torch.optim.Adam:
///     g <- g + wd theta;  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
///     theta <- theta - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
/// With `decoupled` (AdamW; Loshchilov and Hutter, ICLR 2019), as torch.optim.AdamW: theta <- (1 - lr wd) theta first, and g as it is.
/// A parameter whose gradient is undefined is skipped, weight decay included, and its own t does not advance.
///
/// On the CPU (float and double) the update is one pass over each parameter, without contraction to fused multiply-adds, so it gives
/// the same bits on every x86-64 machine; elsewhere it is made of LibTorch operations. Not thread-safe.
class Adam {
 public:
  /// The parameters must be contiguous leaves; they are kept.
  explicit Adam(std::vector<at::Tensor> parameters, const AdamOptions& options = {});

  /// Updates every parameter from its `grad()`.
  void step(double learning_rate);
  /// Makes all gradients undefined. The next backward pass then hands its tensors over without adding.
  void clear_gradients();

  /// Everything it remembers, for a checkpoint: "moments" [2, elements of all parameters] in their order, "steps" [parameters] (int64).
  /// Copies; an optimiser of the same parameters that loads them goes on as this one would.
  NamedTensors state() const;
  /// Throws ModelError, and changes nothing, if one is missing, of another shape, or of another type than `state` gives.
  void load_state(const NamedTensors& state);

 private:
  struct Slot {
    at::Tensor parameter, moment1, moment2;
    std::int64_t steps = 0;
  };
  at::Tensor moments_;  ///< [2, elements]; the slots' are views into it
  std::vector<Slot> slots_;
  AdamOptions options_;
};

}  // namespace fusion
