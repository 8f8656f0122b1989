#include "model/sgd.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "base/error.h"
#include "model/torch_compat.h"

namespace fusion {

Sgd::Sgd(std::vector<at::Tensor> parameters, const SgdOptions& options) : options_(options) {
  std::int64_t total = 0;
  for (const at::Tensor& parameter : parameters) {
    if (!parameter.is_contiguous()) throw ModelError("SGD: parameters must be contiguous");
    total += parameter.numel();
  }
  if (parameters.empty()) return;
  const at::NoGradGuard no_grad;
  momentum_ = at::zeros({total}, parameters.front().options().requires_grad(false));
  std::int64_t begin = 0;
  for (const at::Tensor& parameter : parameters) {
    slots_.push_back({parameter, momentum_.narrow(0, begin, parameter.numel()).view(parameter.sizes())});
    begin += parameter.numel();
  }
}

void Sgd::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  for (Slot& slot : slots_) {
    const at::Tensor& grad = slot.parameter.grad();
    if (!grad.defined()) continue;
    const at::Tensor g = options_.weight_decay == 0 ? grad : grad.add(slot.parameter, options_.weight_decay);
    if (options_.momentum == 0) {
      slot.parameter.sub_(g, learning_rate);
    } else {
      slot.momentum.mul_(options_.momentum).add_(g, slot.steps == 0 ? 1.0 : 1 - options_.dampening);
      slot.parameter.sub_(slot.momentum, learning_rate);
    }
    ++slot.steps;
  }
}

void Sgd::clear_gradients() {
  for (Slot& slot : slots_) slot.parameter.mutable_grad().reset();
}

NamedTensors Sgd::state() const {
  const at::Tensor steps = at::empty({static_cast<std::int64_t>(slots_.size())}, at::TensorOptions().dtype(c10::kLong));
  for (std::size_t i = 0; i < slots_.size(); ++i) steps.data_ptr<std::int64_t>()[i] = slots_[i].steps;
  return {{"momentum", momentum_.defined() ? momentum_.clone() : at::zeros({0})}, {"steps", steps}};
}

void Sgd::load_state(const NamedTensors& state) {
  const at::NoGradGuard no_grad;
  const NamedTensors given = matching_state("SGD", this->state(), state);
  if (momentum_.defined()) momentum_.copy_(given[0].second);
  const at::Tensor steps = given[1].second.to(c10::kCPU).contiguous();
  for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i].steps = steps.data_ptr<std::int64_t>()[i];
}

}  // namespace fusion
