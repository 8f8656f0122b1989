#include "workers/train/retrain_step.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "base/random.h"
#include "model/autocast.h"
#include "model/torch_compat.h"
#include "workers/train/synchronised_batch_norm.h"

namespace fusion {
namespace {

c10::Device device_of(const RetrainedModel& model) { return model.fusion().parameters().named().front().second.device(); }

at::ScalarType type_of(const RetrainedModel& model) { return model.fusion().parameters().named().front().second.scalar_type(); }

}  // namespace

RetrainStep::RetrainStep(RetrainedModel& model, std::uint64_t seed, bool with_backbones)
    : model_(model), seed_(seed), with_backbones_(with_backbones) {
  model.set_backbones_trainable(with_backbones);
  for (const auto& [name, tensor] : with_backbones ? model.parameters() : model.fusion_parameters()) trained_.push_back(tensor);
  adam_ = std::make_unique<Adam>(trained_, AdamOptions{.weight_decay = model.options().weight_decay,
                                                       .decoupled = model.options().optimiser == Optimiser::adamw});
}

ModelOutput RetrainStep::forward(const RetrainBatch& batch, const ModelPass& pass) const {
  const c10::Device device = device_of(model_);
  const auto to_device = [&](std::vector<at::Tensor> tensors) {
    for (at::Tensor& tensor : tensors) {
      if (tensor.defined()) tensor = tensor.to(device, type_of(model_));
    }
    return tensors;
  };
  const Autocast autocast(device, model_.options().mixed_precision == MixedPrecision::on);
  if (!batch.inputs.empty()) return model_.forward(to_device(batch.inputs), pass);
  std::vector<std::vector<at::Tensor>> taps;
  for (const auto& of_modality : batch.taps) taps.push_back(to_device(of_modality));
  return model_.forward_taps(taps, to_device(batch.logits), pass);
}

double RetrainStep::accumulate(const RetrainBatch& batch, double share, std::int64_t rows_seen, const RankGroup* statistics) {
  const SynchronisedBatchNorm synchronised(statistics);
  // A TorchScript backbone draws its dropout from LibTorch's generator, which a resumed training could not know otherwise.
  at::manual_seed(mix(seed_, static_cast<std::uint64_t>(rows_seen)));
  const ModelOutput output = forward(batch, {true, with_backbones_, seed_, rows_seen});
  const at::Tensor loss = output.loss(batch.labels.to(device_of(model_)), model_.options().multitask);
  (share == 1 ? loss : loss.mul(share)).backward();
  return loss.item<double>();
}

double RetrainStep::add_up(const RankGroup& group, double loss) {
  const at::NoGradGuard no_grad;
  // One buffer: gradients, then for each parameter on how many ranks it has one (the optimiser skips those without), then the loss.
  std::int64_t elements = 0;
  bool doubles = false;
  for (const at::Tensor& tensor : trained_) elements += tensor.numel(), doubles = doubles || tensor.scalar_type() == at::kDouble;
  const auto count = static_cast<std::int64_t>(trained_.size());
  at::Tensor flat = at::zeros({elements + count + 1}, at::TensorOptions().device(device_of(model_)).dtype(doubles ? at::kDouble : at::kFloat));
  auto part_of = [&, begin = std::int64_t{0}](const at::Tensor& tensor) mutable {
    const at::Tensor part = flat.narrow(0, begin, tensor.numel()).view(tensor.sizes());
    begin += tensor.numel();
    return part;
  };
  std::vector<at::Tensor> parts;
  at::Tensor had = at::zeros({count + 1}, at::TensorOptions().dtype(at::kDouble));
  for (std::size_t i = 0; i < trained_.size(); ++i) {
    parts.push_back(part_of(trained_[i]));
    if (!trained_[i].grad().defined()) continue;
    parts[i].copy_(trained_[i].grad());
    had.data_ptr<double>()[i] = 1;
  }
  had.data_ptr<double>()[count] = loss;
  const at::Tensor end = flat.narrow(0, elements, count + 1);
  end.copy_(had);
  group.sum(flat);
  had.copy_(end);
  for (std::size_t i = 0; i < trained_.size(); ++i) {
    if (had.data_ptr<double>()[i] == 0) continue;
    trained_[i].mutable_grad() = parts[i].to(trained_[i].scalar_type());
  }
  return had.data_ptr<double>()[count];
}

void RetrainStep::clip() const {
  const at::NoGradGuard no_grad;
  double squares = 0;
  for (const at::Tensor& tensor : trained_) {
    if (!tensor.grad().defined()) continue;
    const double norm = tensor.grad().norm().item<double>();
    squares += norm * norm;
  }
  const double limit = model_.options().clip_norm, norm = std::sqrt(squares);
  if (!(norm > limit)) return;
  for (const at::Tensor& tensor : trained_) {
    if (tensor.grad().defined()) tensor.mutable_grad().mul_(limit / norm);
  }
}

void RetrainStep::move(double learning_rate) {
  if (model_.options().clip_norm > 0) clip();
  adam_->step(learning_rate);
}

ModelOutput RetrainStep::evaluate(const RetrainBatch& batch) const {
  const at::NoGradGuard no_grad;
  ModelOutput output = forward(batch, {});
  output.fusion = output.fusion.to(at::kCPU, at::kFloat);
  for (at::Tensor& own : output.logits) {
    if (own.defined()) own = own.to(at::kCPU, at::kFloat);
  }
  return output;
}

}  // namespace fusion
