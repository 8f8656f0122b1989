#include "model/mmtnet_trainer.h"

#include <ATen/ops/cross_entropy_loss.h>

#include "model/torch_compat.h"

namespace fusion {

MmtNetTrainer::MmtNetTrainer(MmtNet& network, const MmtNetTrainerOptions& options)
    : network_(network),
      options_(options),
      visual_parameters_(network.visual_parameters()),
      skeleton_parameters_(network.skeleton_parameters()),
      visual_adam_(visual_parameters_, options.adam),
      skeleton_adam_(skeleton_parameters_, options.adam) {}

void MmtNetTrainer::clear_gradients(const std::vector<at::Tensor>& own) {
  if (options_.gradients == MmtNetRule::reference) {
    for (const at::Tensor& parameter : own) {
      if (parameter.grad().defined()) parameter.grad().zero_();
    }
    return;
  }
  visual_adam_.clear_gradients();
  skeleton_adam_.clear_gradients();
}

MmtNetTrainer::Step MmtNetTrainer::step(bool visual, const Batch& batch, double learning_rate) {
  const std::vector<at::Tensor>& own = visual ? visual_parameters_ : skeleton_parameters_;
  const MmtNet::Output logits = network_.forward(batch.clip, batch.skeleton, true, batch.dropout);
  const at::Tensor loss = at::cross_entropy_loss(visual ? logits.visual : logits.skeleton, batch.labels);
  clear_gradients(own);
  if (options_.gradients == MmtNetRule::reference) {
    loss.backward();
  } else {
    loss.backward({}, compat::nullopt, false, at::TensorList(own));
  }
  (visual ? visual_adam_ : skeleton_adam_).step(learning_rate);
  return {loss.detach(), {logits.visual.detach(), logits.skeleton.detach()}};
}

}  // namespace fusion
