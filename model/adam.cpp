#include "model/adam.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "base/error.h"
#include "base/vector_clones.h"
#include "model/torch_compat.h"

// Compiled with -ffp-contract=off (CMakeLists.txt).

namespace fusion {
namespace {

/// What one update needs, in the parameter's own type, as LibTorch converts its scalars.
template <typename T>
struct Factors {
  T beta1, beta2, rest1, rest2, eps, weight_decay, root2, step_size;
  T shrink;  ///< 1, or 1 - lr wd where decay is decoupled; then weight_decay is 0
};

template <typename T>
[[gnu::always_inline]] inline void update(T* __restrict theta, const T* __restrict grad, T* __restrict m, T* __restrict v,
                                          std::int64_t count, const Factors<T>& given) {
  const Factors<T> f = given;
  for (std::int64_t i = 0; i < count; ++i) {
    const T before = theta[i] * f.shrink;
    const T g = grad[i] + f.weight_decay * before;
    m[i] = m[i] * f.beta1 + f.rest1 * g;
    v[i] = v[i] * f.beta2 + f.rest2 * g * g;
    const T denominator = std::sqrt(v[i]) / f.root2 + f.eps;
    theta[i] = before - f.step_size * (m[i] / denominator);
  }
}

FUSION_VECTOR_CLONES void update_float(float* theta, const float* grad, float* m, float* v, std::int64_t count,
                                       const Factors<float>& f) {
  update(theta, grad, m, v, count, f);
}
FUSION_VECTOR_CLONES void update_double(double* theta, const double* grad, double* m, double* v, std::int64_t count,
                                        const Factors<double>& f) {
  update(theta, grad, m, v, count, f);
}

/// What the weights are multiplied with first, and how much of them is added to the gradient.
struct Decay {
  double shrink, weight;
};

template <typename T>
Factors<T> factors(const AdamOptions& o, double root2, double step_size, Decay decay) {
  return {static_cast<T>(o.beta1), static_cast<T>(o.beta2),      static_cast<T>(1 - o.beta1), static_cast<T>(1 - o.beta2),
          static_cast<T>(o.eps),   static_cast<T>(decay.weight), static_cast<T>(root2),       static_cast<T>(step_size),
          static_cast<T>(decay.shrink)};
}

}  // namespace

Adam::Adam(std::vector<at::Tensor> parameters, const AdamOptions& options) : options_(options) {
  std::int64_t total = 0;
  for (const at::Tensor& parameter : parameters) {
    if (!parameter.is_contiguous()) throw ModelError("Adam: parameters must be contiguous");
    total += parameter.numel();
  }
  if (parameters.empty()) return;
  const at::NoGradGuard no_grad;
  moments_ = at::zeros({2, total}, parameters.front().options().requires_grad(false));
  std::int64_t begin = 0;
  for (const at::Tensor& parameter : parameters) {
    const auto part = [&](std::int64_t row) {
      return moments_.select(0, row).narrow(0, begin, parameter.numel()).view(parameter.sizes());
    };
    slots_.push_back({parameter, part(0), part(1)});
    begin += parameter.numel();
  }
}

void Adam::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  const Decay decay = options_.decoupled ? Decay{1 - learning_rate * options_.weight_decay, 0} : Decay{1, options_.weight_decay};
  for (Slot& slot : slots_) {
    const at::Tensor& grad_there = slot.parameter.grad();
    if (!grad_there.defined()) continue;
    ++slot.steps;
    const auto t = static_cast<double>(slot.steps);
    const double root2 = std::sqrt(1 - std::pow(options_.beta2, t));
    const double step_size = learning_rate / (1 - std::pow(options_.beta1, t));
    const at::Tensor grad = grad_there.is_contiguous() ? grad_there : grad_there.contiguous();
    const c10::ScalarType type = slot.parameter.scalar_type();
    if (slot.parameter.is_cpu() && type == c10::kFloat) {
      update_float(slot.parameter.data_ptr<float>(), grad.data_ptr<float>(), slot.moment1.data_ptr<float>(),
                   slot.moment2.data_ptr<float>(), grad.numel(), factors<float>(options_, root2, step_size, decay));
    } else if (slot.parameter.is_cpu() && type == c10::kDouble) {
      update_double(slot.parameter.data_ptr<double>(), grad.data_ptr<double>(), slot.moment1.data_ptr<double>(),
                    slot.moment2.data_ptr<double>(), grad.numel(), factors<double>(options_, root2, step_size, decay));
    } else {
      if (options_.decoupled) slot.parameter.mul_(decay.shrink);
      const at::Tensor g = options_.decoupled ? grad : grad.add(slot.parameter, decay.weight);
      slot.moment1.mul_(options_.beta1).add_(g, 1 - options_.beta1);
      slot.moment2.mul_(options_.beta2).addcmul_(g, g, 1 - options_.beta2);
      slot.parameter.addcdiv_(slot.moment1, slot.moment2.sqrt().div_(root2).add_(options_.eps), -step_size);
    }
  }
}

void Adam::clear_gradients() {
  for (Slot& slot : slots_) slot.parameter.mutable_grad().reset();
}

NamedTensors Adam::state() const {
  const at::Tensor steps = at::empty({static_cast<std::int64_t>(slots_.size())}, at::TensorOptions().dtype(c10::kLong));
  for (std::size_t i = 0; i < slots_.size(); ++i) steps.data_ptr<std::int64_t>()[i] = slots_[i].steps;
  return {{"moments", moments_.defined() ? moments_.clone() : at::zeros({2, 0})}, {"steps", steps}};
}

void Adam::load_state(const NamedTensors& state) {
  const at::NoGradGuard no_grad;
  const NamedTensors expected = this->state();
  const NamedTensors given = matching_state("Adam", expected, state);
  if (moments_.defined()) moments_.copy_(given[0].second);
  const at::Tensor steps = given[1].second.to(c10::kCPU).contiguous();
  for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i].steps = steps.data_ptr<std::int64_t>()[i];
}

}  // namespace fusion
