#pragma once

#include <ATen/core/Tensor.h>

#include "model/adam.h"
#include "model/mmtnet.h"

namespace fusion {

struct MmtNetTrainerOptions {
  AdamOptions adam{.weight_decay = 1e-4};
  /// What becomes of the gradients before a step. repaired: every gradient is forgotten, and the step computes those of its own
  /// branch and of the modules only. reference: the step's own gradients are set to zero if they were ever there and the other
  /// branch's go on adding up, as PyTorch before 2.0 did; a module's gate that a loss does not reach then has gradient 0, and weight
  /// decay moves it by about the learning rate at every step.
  MmtNetRule gradients = MmtNetRule::repaired;
};

/// Trains an MmtNet as the authors' code does: per batch two full steps on the same rows, first of the visual branch, then, with the
/// new weights, of the skeleton branch. Each branch has an Adam of its own over itself and all modules, so that a module's weights
/// have two sets of moments. There is no loss on the joined prediction; the running statistics are updated in both steps.
///
/// The published training: learning rate 1e-4, times 0.1 from epoch 5 and again from epoch 20 on (counted from 0), batches of 20, 70
/// epochs, both branches started from trained networks. Not thread-safe; the network must outlive the trainer.
class MmtNetTrainer {
 public:
  struct Step {
    at::Tensor loss;  ///< cross entropy of the step's own branch, a number
    MmtNet::Output logits;
  };
  struct Batch {
    at::Tensor clip;      ///< [B, T, H, W, 3]
    at::Tensor skeleton;  ///< [B, 3, window, joints, persons]
    at::Tensor labels;    ///< [B], int64
    const DropoutRows* dropout = nullptr;
  };

  explicit MmtNetTrainer(MmtNet& network, const MmtNetTrainerOptions& options = {});

  Step visual_step(const Batch& batch, double learning_rate) { return step(true, batch, learning_rate); }
  Step skeleton_step(const Batch& batch, double learning_rate) { return step(false, batch, learning_rate); }

 private:
  Step step(bool visual, const Batch& batch, double learning_rate);
  void clear_gradients(const std::vector<at::Tensor>& own);

  MmtNet& network_;
  MmtNetTrainerOptions options_;
  std::vector<at::Tensor> visual_parameters_, skeleton_parameters_;
  Adam visual_adam_, skeleton_adam_;
};

}  // namespace fusion
