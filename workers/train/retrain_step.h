#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "model/adam.h"
#include "model/retrained_model.h"
#include "workers/train/rank_group.h"
#include "workers/train/retrain_inputs.h"

namespace fusion {

/// Moves the weights of a retrained model: forward, loss, backward, clipping, optimiser. One per phase.
///
/// A step takes one or more batches, whose gradients are averaged over all of the step's rows; where several ranks share the rows, `add_up` joins
/// what they have. Batches come on the CPU and are moved to the model's device. In `mixed` precision the forward pass runs under autocast
/// (model/autocast.h).
class RetrainStep {
 public:
  /// `with_backbones`: their weights are trained too, with batch statistics.
  RetrainStep(RetrainedModel& model, std::uint64_t seed, bool with_backbones);

  /// One batch: adds the gradient of `share` times its mean loss, which it returns. `rows_seen`: rows trained on before it. Batch statistics are of
  /// this batch, or with `statistics` of the batches of all ranks. The step's gradients must have been cleared.
  double accumulate(const RetrainBatch& batch, double share, std::int64_t rows_seen, const RankGroup* statistics = nullptr);
  /// Replaces the gradients by their sums over all ranks, in one message, and returns the sum of `loss` over them.
  double add_up(const RankGroup& group, double loss);
  /// Cuts the gradient's norm, if asked for, and moves the weights.
  void move(double learning_rate);
  void clear_gradients() { adam_->clear_gradients(); }

  /// Of a batch, in evaluation mode, without gradients: logits are on the CPU, float32.
  ModelOutput evaluate(const RetrainBatch& batch) const;

  /// For a checkpoint (model/adam.h).
  NamedTensors state() const { return adam_->state(); }
  void load_state(const NamedTensors& state) { adam_->load_state(state); }

 private:
  ModelOutput forward(const RetrainBatch& batch, const ModelPass& pass) const;
  void clip() const;

  RetrainedModel& model_;
  std::uint64_t seed_;
  bool with_backbones_;
  std::vector<at::Tensor> trained_;
  std::unique_ptr<Adam> adam_;
};

}  // namespace fusion
