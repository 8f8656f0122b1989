#include "workers/train/plain_network.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "model/dropout.h"
#include "model/torch_compat.h"

namespace fusion::plain {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr std::int64_t kNearBytes = 512 << 10;  // parameters and moments that stay in the second-level cache beside a tile

Nonlinearity nonlinearity_of(Activation activation) {
  switch (activation) {
    case Activation::relu: return Nonlinearity::relu;
    case Activation::sigmoid: return Nonlinearity::sigmoid;
    case Activation::leaky_relu: return Nonlinearity::leaky_relu;
    case Activation::identity: return Nonlinearity::identity;
  }
  return Nonlinearity::identity;
}

template <typename T>
void at_least(Numbers<T>& numbers, std::int64_t count) {
  if (numbers.size() < count) numbers = Numbers<T>(count);
}

template <typename T>
void copy(const Numbers<T>& from, Numbers<T>& to) {
  if (from.size() > 0) std::memcpy(to.data(), from.data(), static_cast<std::size_t>(from.size()) * sizeof(T));
}

}  // namespace

template <typename T>
Numbers<T>::Numbers(std::int64_t count)
    : values_(static_cast<T*>(::operator new[](static_cast<std::size_t>(count) * sizeof(T), kAlignment))), count_(count) {
  std::fill_n(values_.get(), count, T{0});
}

template <typename T>
void Numbers<T>::Release::operator()(T* values) const {
  ::operator delete[](values, kAlignment);
}

// ---- layout

template <typename T>
Network<T>::Network(const FusionNetwork& from, const TapWidths& widths, std::uint64_t mask_seed, double dropout)
    : k_(kernels<T>()), options_(from.options()), mask_seed_(mask_seed), dropout_(dropout), true_parameters_(from.parameters().count()) {
  lay_out(from, widths);
  parameters_ = Numbers<T>(count_);
  moment1_ = Numbers<T>(count_);
  moment2_ = Numbers<T>(count_);
  kept_parameters_ = Numbers<T>(count_);
  far_ = 3 * count_ * static_cast<std::int64_t>(sizeof(T)) > kNearBytes;
  constexpr at::ScalarType kType = sizeof(T) == sizeof(float) ? at::kFloat : at::kDouble;
  visit_tensors(from, [&](const at::Tensor& tensor, std::int64_t offset, std::int64_t stride) {
    const at::Tensor values = tensor.detach().to(at::kCPU, kType).contiguous();
    const std::int64_t outputs = values.size(0), inputs = values.numel() / outputs;
    k_.transpose(values.template data_ptr<T>(), inputs, outputs, inputs, parameters_.data() + offset, stride);
  });
  if (options_.batchnorm) {
    statistics_ = Numbers<T>(static_cast<std::int64_t>(steps_.size()) * 2 * columns_);
    kept_statistics_ = Numbers<T>(statistics_.size());
    std::int64_t at = 0;
    for (const auto& [name, tensor] : from.buffers().named()) {  // mean and variance, step by step
      const at::Tensor values = tensor.to(at::kCPU, at::kDouble);
      for (std::int64_t i = 0; i < values.numel(); ++i) statistics_.data()[at + i] = static_cast<T>(values.data_ptr<double>()[i]);
      at += columns_;
    }
  }
  keep();
}

template <typename T>
void Network<T>::lay_out(const FusionNetwork& from, const TapWidths& widths) {
  columns_ = padded(options_.width);
  class_columns_ = padded(options_.classes);
  std::int64_t at = 0;
  const auto take = [&at](std::int64_t count) { return std::exchange(at, at + count); };
  for (const FusionStep& of_step : from.architecture().steps) {
    StepLayout& step = steps_.emplace_back();
    step.op = of_step.op;
    step.nonlinearity = nonlinearity_of(of_step.activation);
    for (std::size_t m = 0; m < of_step.taps.size(); ++m) {
      step.taps.push_back(static_cast<std::size_t>(of_step.taps[m]));
      step.widths.push_back(widths[m][step.taps.back()]);
      step.tap_inputs += step.widths.back();
    }
    step.inputs = step.tap_inputs + (steps_.size() > 1 ? options_.width : 0);
    step.outputs = step.op == FusionOp::glu ? 2 * columns_ : columns_;
    step.weight = take(step.inputs * step.outputs);
    step.bias = take(step.outputs);
    step.gamma = take(columns_);
    step.beta = take(columns_);
    step.alpha = take(kColumns);
  }
  classifier_ = take(options_.width * class_columns_);
  classifier_bias_ = take(class_columns_);
  count_ = at;
}

template <typename T>
template <typename Visit>
void Network<T>::visit_tensors(const FusionNetwork& network, Visit visit) const {
  const FlatTensors& tensors = network.parameters();
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const StepLayout& step = steps_[i];
    const std::string layer = "layer" + std::to_string(i) + ".";
    visit(tensors.at(layer + "linear.weight"), step.weight, step.outputs);
    visit(tensors.at(layer + "linear.bias"), step.bias, 0);
    if (step.op == FusionOp::glu) {
      visit(tensors.at(layer + "gate.weight"), step.weight + columns_, step.outputs);
      visit(tensors.at(layer + "gate.bias"), step.bias + columns_, 0);
    }
    if (options_.batchnorm) {
      visit(tensors.at(layer + "bn.weight"), step.gamma, 0);
      visit(tensors.at(layer + "bn.bias"), step.beta, 0);
    }
    if (options_.alphas) visit(tensors.at(layer + "alpha"), step.alpha, 0);
  }
  visit(tensors.at("classifier.weight"), classifier_, class_columns_);
  visit(tensors.at("classifier.bias"), classifier_bias_, 0);
}

template <typename T>
void Network<T>::copy_to(FusionNetwork& to) const {
  const at::NoGradGuard no_grad;
  visit_tensors(to, [&](const at::Tensor& tensor, std::int64_t offset, std::int64_t stride) {
    const at::Tensor values = at::empty(tensor.sizes(), at::TensorOptions().dtype(at::kDouble));
    const std::int64_t outputs = values.size(0), inputs = values.numel() / outputs;
    double* const out = values.template data_ptr<double>();
    for (std::int64_t o = 0; o < outputs; ++o) {
      for (std::int64_t i = 0; i < inputs; ++i) out[o * inputs + i] = static_cast<double>(parameters_.data()[offset + i * stride + o]);
    }
    tensor.copy_(values);
  });
  std::int64_t at = 0;
  for (const auto& [name, tensor] : to.buffers().named()) {
    const at::Tensor values = at::empty(tensor.sizes(), at::TensorOptions().dtype(at::kDouble));
    for (std::int64_t i = 0; i < values.numel(); ++i) values.data_ptr<double>()[i] = static_cast<double>(statistics_.data()[at + i]);
    tensor.copy_(values);
    at += columns_;
  }
}

template <typename T>
void Network<T>::keep() {
  copy(parameters_, kept_parameters_);
  copy(statistics_, kept_statistics_);
}

template <typename T>
void Network<T>::restore() {
  copy(kept_parameters_, parameters_);
  copy(kept_statistics_, statistics_);
}

template <typename T>
std::int64_t Network<T>::bytes() const {
  return (4 * count_ + 2 * statistics_.size()) * static_cast<std::int64_t>(sizeof(T));
}

template <typename T>
void Network<T>::reserve(Workspace<T>& work, std::int64_t rows) const {
  if (work.steps.size() < steps_.size()) work.steps.resize(steps_.size());
  const std::int64_t count = rows * columns_;
  std::int64_t weights = std::max(class_columns_, columns_) * columns_;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    auto& step = work.steps[i];
    weights = std::max(weights, steps_[i].inputs * steps_[i].outputs);
    at_least(step.product, rows * steps_[i].outputs);
    at_least(step.activated, count);
    if (options_.batchnorm) at_least(step.normalised, count), at_least(step.rstd, columns_);
    if (options_.batchnorm || dropout_ > 0) at_least(step.hidden, count);
    if (dropout_ > 0) at_least(step.mask, count);
  }
  for (auto& gradient : work.gradient) at_least(gradient, count);
  at_least(work.product_gradient, 2 * count);
  at_least(work.logits, rows * class_columns_);
  at_least(work.turned, std::max(class_columns_, 2 * columns_) * columns_);
  at_least(work.small, 4 * columns_ + class_columns_);
  if (options_.alphas) at_least(work.scaled, weights), at_least(work.weight_gradient, weights);
  if (dropout_ > 0) at_least(work.mask, rows * options_.width);
}

// ---- forward

template <typename T>
T Network<T>::share(const StepLayout& step) const {
  return T{1} / (T{1} + std::exp(-parameters_.data()[step.alpha]));
}

template <typename T>
const T* Network<T>::scaled_weights(const StepLayout& step, Workspace<T>& work) const {
  const T* const weights = parameters_.data() + step.weight;
  if (!options_.alphas) return weights;
  const T s = share(step);
  T* const scaled = work.scaled.data();
  const std::int64_t first = step.widths.front() * step.outputs, taps = step.tap_inputs * step.outputs;
  for (std::int64_t i = 0; i < first; ++i) scaled[i] = s * weights[i];
  for (std::int64_t i = first; i < taps; ++i) scaled[i] = (1 - s) * weights[i];
  for (std::int64_t i = taps; i < step.inputs * step.outputs; ++i) scaled[i] = weights[i];
  return scaled;
}

template <typename T>
void Network<T>::product(std::size_t index, const Rows& rows, const T* previous, Workspace<T>& work) const {
  const StepLayout& step = steps_[index];
  const T* weights = scaled_weights(step, work);
  const T* bias = parameters_.data() + step.bias;
  Factor<T> factors[16];
  const std::size_t count = step.taps.size() + (previous ? 1 : 0);
  std::vector<Factor<T>> many(count > std::size(factors) ? count : 0);
  Factor<T>* const all = many.empty() ? factors : many.data();
  for (std::size_t m = 0; m < step.taps.size(); ++m) {
    all[m] = {rows.tile.tap(m, step.taps[m], rows.first), rows.tile.stride(m, step.taps[m]), 1, step.widths[m]};
  }
  if (previous) all[count - 1] = {previous, columns_, 1, options_.width};
  k_.product(work.steps[index].product.data(), step.outputs, rows.count, step.outputs, all, count, weights, step.outputs, bias);
}

template <typename T>
const T* Network<T>::draw_mask(std::size_t index, std::int64_t rows, std::int64_t seen, Workspace<T>& work) const {
  if (dropout_ == 0) return nullptr;
  T* const mask = work.steps[index].mask.data();
  const std::int64_t width = options_.width;
  const auto draw = [&](float* out) {
    fill_dropout_mask(out, rows * width, seen * width, dropout_, mask_seed_, static_cast<std::uint32_t>(index));
  };
  if constexpr (std::is_same_v<T, float>) {
    if (width == columns_) {
      draw(mask);
      return mask;
    }
  }
  draw(work.mask.data());
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < width; ++c) mask[r * columns_ + c] = static_cast<T>(work.mask.data()[r * width + c]);
  }
  return mask;
}

template <typename T>
const T* Network<T>::step_hidden(std::size_t index, const Workspace<T>& work) const {
  return options_.batchnorm || dropout_ > 0 ? work.steps[index].hidden.data() : work.steps[index].activated.data();
}

template <typename T>
const T* Network<T>::forward(const Rows& rows, std::int64_t seen, Workspace<T>& work) {
  const T* previous = nullptr;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const StepLayout& step = steps_[i];
    auto& of_step = work.steps[i];
    product(i, rows, previous, work);
    const T* const mask = draw_mask(i, rows.count, seen, work);
    const T* const activation_mask = options_.batchnorm ? nullptr : mask;
    if (step.op == FusionOp::glu) {
      k_.gate(step.nonlinearity, of_step.product.data(), of_step.activated.data(), of_step.hidden.data(), activation_mask, rows.count,
              columns_);
    } else {
      k_.activate(step.nonlinearity, of_step.product.data(), of_step.activated.data(), of_step.hidden.data(), activation_mask,
                  rows.count * columns_);
    }
    if (options_.batchnorm) {
      T* const mean = statistics_.data() + static_cast<std::int64_t>(i) * 2 * columns_;
      k_.normalise(of_step.activated.data(), parameters_.data() + step.gamma, parameters_.data() + step.beta, mask, mean,
                   mean + columns_, of_step.normalised.data(), of_step.hidden.data(), of_step.rstd.data(), rows.count, columns_);
    }
    previous = step_hidden(i, work);
  }
  return previous;
}

template <typename T>
void Network<T>::classify(const T* hidden, std::int64_t rows, Workspace<T>& work) const {
  const Factor<T> factor{hidden, columns_, 1, options_.width};
  k_.product(work.logits.data(), class_columns_, rows, class_columns_, &factor, 1, parameters_.data() + classifier_, class_columns_,
             parameters_.data() + classifier_bias_);
}

template <typename T>
T* Network<T>::logits(const FeatureTile<T>& tile, std::int64_t first, std::int64_t rows, Workspace<T>& work) const {
  reserve(work, rows);
  const Rows some{tile, first, rows};
  const T* previous = nullptr;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const StepLayout& step = steps_[i];
    auto& of_step = work.steps[i];
    T* const activated = of_step.activated.data();
    product(i, some, previous, work);
    if (step.op == FusionOp::glu) {
      k_.gate(step.nonlinearity, of_step.product.data(), activated, nullptr, nullptr, rows, columns_);
    } else {
      k_.activate(step.nonlinearity, of_step.product.data(), activated, nullptr, nullptr, rows * columns_);
    }
    if (options_.batchnorm) {
      const T* const mean = statistics_.data() + static_cast<std::int64_t>(i) * 2 * columns_;
      k_.normalise_running(activated, parameters_.data() + step.gamma, parameters_.data() + step.beta, mean, mean + columns_, rows,
                           columns_);
    }
    previous = activated;
  }
  classify(previous, rows, work);
  return work.logits.data();
}

template <typename T>
void Network<T>::predict(const FeatureTile<T>& tile, std::int64_t first, std::int64_t rows, bool add_stored, Workspace<T>& work,
                         std::int64_t* out) const {
  T* const sums = logits(tile, first, rows, work);
  if (add_stored) {
    const T* const stored = tile.logits(first);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < options_.classes; ++c) sums[r * class_columns_ + c] += stored[r * options_.classes + c];
    }
  }
  k_.largest(sums, class_columns_, rows, options_.classes, out);
}

// ---- backward

template <typename T>
double Network<T>::train(const FeatureTile<T>& tile, std::int64_t first, std::int64_t rows, std::int64_t seen, const AdamStep<T>& adam,
                         Workspace<T>& work) {
  reserve(work, rows);
  const Rows some{tile, first, rows};
  const T* const hidden = forward(some, seen, work);
  classify(hidden, rows, work);
  const double loss = k_.softmax_loss(work.logits.data(), class_columns_, rows, options_.classes, tile.labels(first));
  if (std::isfinite(loss)) backward(some, hidden, adam, work);
  return loss;
}

template <typename T>
Trained<T> Network<T>::trained(std::int64_t at, std::int64_t stride) {
  return {parameters_.data() + at, moment1_.data() + at, moment2_.data() + at, stride, far_};
}

template <typename T>
void Network<T>::update_vector(std::int64_t at, const T* gradient, std::int64_t count, const AdamStep<T>& adam) {
  k_.adam(parameters_.data() + at, moment1_.data() + at, moment2_.data() + at, gradient, count, adam);
}

// What a gradient flows through backwards is read before it is updated.
template <typename T>
void Network<T>::backward(const Rows& rows, const T* hidden, const AdamStep<T>& adam, Workspace<T>& work) {
  const T* const logit_gradient = work.logits.data();
  T* gradient = work.gradient[0].data();
  T* other = work.gradient[1].data();
  T* const turned = work.turned.data();

  k_.transpose(parameters_.data() + classifier_, class_columns_, options_.width, class_columns_, turned, columns_);
  const Factor<T> of_logits{logit_gradient, class_columns_, 1, options_.classes};
  k_.product(gradient, columns_, rows.count, columns_, &of_logits, 1, turned, columns_, nullptr);
  k_.update(trained(classifier_, class_columns_), options_.width, class_columns_, {hidden, 1, columns_, rows.count}, logit_gradient,
            class_columns_, adam);
  k_.column_sums(logit_gradient, class_columns_, rows.count, class_columns_, work.small.data());
  update_vector(classifier_bias_, work.small.data(), class_columns_, adam);

  for (std::size_t i = steps_.size(); i-- > 0;) {
    const StepLayout& step = steps_[i];
    const T* const dz = product_gradient(i, rows.count, gradient, adam, work);
    if (i > 0) {
      const T* const recurrent = parameters_.data() + step.weight + step.tap_inputs * step.outputs;
      k_.transpose(recurrent, step.outputs, options_.width, step.outputs, turned, columns_);
      const Factor<T> of_product{dz, step.outputs, 1, step.outputs};
      k_.product(other, columns_, rows.count, columns_, &of_product, 1, turned, columns_, nullptr);
    }
    update_step(i, rows, dz, adam, work);
    std::swap(gradient, other);
  }
}

template <typename T>
const T* Network<T>::product_gradient(std::size_t index, std::int64_t rows, T* gradient, const AdamStep<T>& adam, Workspace<T>& work) {
  const StepLayout& step = steps_[index];
  auto& of_step = work.steps[index];
  const T* mask = dropout_ > 0 ? of_step.mask.data() : nullptr;
  if (options_.batchnorm) {
    T* const to_gamma = work.small.data();
    T* const to_beta = to_gamma + columns_;
    k_.normalise_back(of_step.normalised.data(), of_step.rstd.data(), parameters_.data() + step.gamma, mask, gradient, gradient,
                      to_gamma, to_beta, rows, columns_);
    update_vector(step.gamma, to_gamma, columns_, adam);
    update_vector(step.beta, to_beta, columns_, adam);
    mask = nullptr;
  }
  if (step.op == FusionOp::glu) {
    k_.gate_back(step.nonlinearity, of_step.product.data(), gradient, mask, work.product_gradient.data(), rows, columns_);
    return work.product_gradient.data();
  }
  k_.activate_back(step.nonlinearity, of_step.activated.data(), gradient, mask, gradient, rows * columns_);
  return gradient;
}

template <typename T>
T Network<T>::update_scaled(std::int64_t at, std::int64_t width, std::int64_t outputs, const Factor<T>& tap, T share, const T* dz,
                            const AdamStep<T>& adam, Workspace<T>& work) {
  T* const gradient = work.weight_gradient.data();
  k_.product(gradient, outputs, width, outputs, &tap, 1, dz, outputs, nullptr);
  const T towards_share = k_.dot(parameters_.data() + at, gradient, width * outputs);
  for (std::int64_t i = 0; i < width * outputs; ++i) gradient[i] *= share;
  update_vector(at, gradient, width * outputs, adam);
  return towards_share;
}

template <typename T>
void Network<T>::update_step(std::size_t index, const Rows& rows, const T* dz, const AdamStep<T>& adam, Workspace<T>& work) {
  const StepLayout& step = steps_[index];
  std::int64_t at = step.weight;
  const T s = options_.alphas ? share(step) : T{1};
  T towards_share = 0;
  for (std::size_t m = 0; m < step.taps.size(); ++m) {
    const Factor<T> tap{rows.tile.tap(m, step.taps[m], rows.first), 1, rows.tile.stride(m, step.taps[m]), rows.count};
    if (options_.alphas) {
      const T part = update_scaled(at, step.widths[m], step.outputs, tap, m == 0 ? s : 1 - s, dz, adam, work);
      towards_share += m == 0 ? part : -part;
    } else {
      k_.update(trained(at, step.outputs), step.widths[m], step.outputs, tap, dz, step.outputs, adam);
    }
    at += step.widths[m] * step.outputs;
  }
  if (index > 0) {
    k_.update(trained(at, step.outputs), options_.width, step.outputs, {step_hidden(index - 1, work), 1, columns_, rows.count}, dz,
              step.outputs, adam);
  }
  T* const small = work.small.data();
  k_.column_sums(dz, step.outputs, rows.count, step.outputs, small);
  update_vector(step.bias, small, step.outputs, adam);
  if (!options_.alphas) return;
  std::fill_n(small, kColumns, T{0});
  small[0] = towards_share * s * (1 - s);
  update_vector(step.alpha, small, kColumns, adam);
}

template class Numbers<float>;
template class Numbers<double>;
template class Network<float>;
template class Network<double>;

}  // namespace fusion::plain
