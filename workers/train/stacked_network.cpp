#include "workers/train/stacked_network.h"

#include <algorithm>
#include <string>
#include <utility>

#include "model/torch_compat.h"

namespace fusion::stacked {
namespace {

constexpr std::int64_t kAlignment = 64;  // numbers

std::int64_t aligned(std::int64_t count) { return (count + kAlignment - 1) / kAlignment * kAlignment; }

template <typename T>
constexpr at::ScalarType kType = sizeof(T) == sizeof(float) ? at::kFloat : at::kDouble;

Nonlinearity nonlinearity_of(Activation activation) {
  switch (activation) {
    case Activation::relu: return Nonlinearity::relu;
    case Activation::sigmoid: return Nonlinearity::sigmoid;
    case Activation::leaky_relu: return Nonlinearity::leaky_relu;
    case Activation::identity: return Nonlinearity::identity;
  }
  return Nonlinearity::identity;
}

}  // namespace

template <typename T>
Network<T>::Network(Backend<T>& backend, const FusionNetwork& from, const TapWidths& widths, std::uint64_t seed,
                    const NetworkOptions& options)
    : backend_(backend), options_(options), seed_(seed) {
  lay_out(from, widths);
  memory_ = DeviceMemory<T>(backend, total_ * static_cast<std::int64_t>(sizeof(T)));
  std::vector<T> host(static_cast<std::size_t>(count_));
  visit_tensors(from, [&](const at::Tensor& tensor, std::int64_t offset, std::int64_t stride) {
    const at::Tensor values = tensor.detach().to(at::kCPU, kType<T>).contiguous();
    const std::int64_t outputs = values.size(0), inputs = values.numel() / outputs;
    const T* const in = values.template data_ptr<T>();
    for (std::int64_t i = 0; i < inputs; ++i) {
      for (std::int64_t o = 0; o < outputs; ++o) host[static_cast<std::size_t>(offset + i * stride + o)] = in[o * inputs + i];
    }
  });
  backend.upload(theta(), host.data(), count_ * static_cast<std::int64_t>(sizeof(T)));
  std::vector<T> statistics;
  for (const auto& [name, tensor] : from.buffers().named()) {  // mean and variance, step by step
    const at::Tensor values = tensor.to(at::kCPU, kType<T>).contiguous();
    statistics.insert(statistics.end(), values.template data_ptr<T>(), values.template data_ptr<T>() + values.numel());
  }
  backend.upload(this->statistics(), statistics.data(), static_cast<std::int64_t>(statistics.size() * sizeof(T)));
  keep();
}

template <typename T>
void Network<T>::lay_out(const FusionNetwork& from, const TapWidths& widths) {
  const std::int64_t width = options_.fusion.width, classes = options_.fusion.classes;
  const bool batchnorm = options_.fusion.batchnorm;
  std::int64_t outputs = width;  // the widest product
  for (const FusionStep& of_step : from.architecture().steps) {
    StepLayout& step = steps_.emplace_back();
    step.op = of_step.op;
    step.nonlinearity = nonlinearity_of(of_step.activation);
    for (std::size_t m = 0; m < of_step.taps.size(); ++m) {
      step.taps.push_back(static_cast<std::size_t>(of_step.taps[m]));
      step.widths.push_back(widths[m][step.taps.back()]);
      step.tap_inputs += step.widths.back();
    }
    step.inputs = step.tap_inputs + (steps_.size() > 1 ? width : 0);
    step.outputs = step.op == FusionOp::glu ? 2 * width : width;
    outputs = std::max(outputs, step.outputs);
    const auto take = [this](std::int64_t count) { return std::exchange(count_, count_ + count); };
    step.weight = take((step.inputs + 1) * step.outputs);
    step.gamma = take(batchnorm ? width : 0);
    step.beta = take(batchnorm ? width : 0);
    step.alpha = take(options_.fusion.alphas ? 1 : 0);
    step.statistics = std::exchange(statistics_count_, statistics_count_ + (batchnorm ? 2 * width : 0));
  }
  classifier_ = std::exchange(count_, count_ + (width + 1) * classes);

  stride_ = aligned(count_);
  statistics_stride_ = aligned(statistics_count_);
  total_ = 5 * stride_ + 2 * statistics_stride_;
  const auto take = [this](std::int64_t count) { return std::exchange(total_, total_ + aligned(count)); };
  const std::int64_t rows = std::max(options_.batch, options_.scored_rows);
  for (StepLayout& step : steps_) {
    step.product = take(rows * step.outputs);
    const bool in_place = step.op != FusionOp::glu && !batchnorm && options_.dropout == 0;
    step.hidden = in_place ? step.product : take(rows * width);
    step.normalised = take(batchnorm ? options_.batch * width : 0);
    step.rstd = take(batchnorm ? width : 0);
  }
  step_gradient_ = take(options_.batch * width);
  product_gradient_ = take(options_.batch * outputs);
  logits_ = take(rows * classes);
}

template <typename T>
template <typename Visit>
void Network<T>::visit_tensors(const FusionNetwork& network, Visit visit) const {
  const FlatTensors& tensors = network.parameters();
  const std::int64_t width = options_.fusion.width, classes = options_.fusion.classes;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const StepLayout& step = steps_[i];
    const std::int64_t bias = step.weight + step.inputs * step.outputs;
    const std::string layer = "layer" + std::to_string(i) + ".";
    visit(tensors.at(layer + "linear.weight"), step.weight, step.outputs);
    visit(tensors.at(layer + "linear.bias"), bias, 0);
    if (step.op == FusionOp::glu) {
      visit(tensors.at(layer + "gate.weight"), step.weight + width, step.outputs);
      visit(tensors.at(layer + "gate.bias"), bias + width, 0);
    }
    if (options_.fusion.batchnorm) {
      visit(tensors.at(layer + "bn.weight"), step.gamma, 0);
      visit(tensors.at(layer + "bn.bias"), step.beta, 0);
    }
    if (options_.fusion.alphas) visit(tensors.at(layer + "alpha"), step.alpha, 0);
  }
  visit(tensors.at("classifier.weight"), classifier_, classes);
  visit(tensors.at("classifier.bias"), classifier_ + width * classes, 0);
}

template <typename T>
void Network<T>::keep() {
  backend_.copy(at(4 * stride_), theta(), count_ * static_cast<std::int64_t>(sizeof(T)));
  backend_.copy(statistics() + statistics_stride_, statistics(), statistics_count_ * static_cast<std::int64_t>(sizeof(T)));
}

template <typename T>
void Network<T>::restore() {
  backend_.copy(theta(), at(4 * stride_), count_ * static_cast<std::int64_t>(sizeof(T)));
  backend_.copy(statistics(), statistics() + statistics_stride_, statistics_count_ * static_cast<std::int64_t>(sizeof(T)));
}

template <typename T>
void Network<T>::copy_to(FusionNetwork& to) const {
  const at::NoGradGuard no_grad;
  std::vector<T> host(static_cast<std::size_t>(count_)), statistics(static_cast<std::size_t>(statistics_count_));
  backend_.download(host.data(), theta(), count_ * static_cast<std::int64_t>(sizeof(T)));
  backend_.download(statistics.data(), this->statistics(), statistics_count_ * static_cast<std::int64_t>(sizeof(T)));
  visit_tensors(to, [&](const at::Tensor& tensor, std::int64_t offset, std::int64_t stride) {
    const at::Tensor values = tensor.detach().to(at::kCPU, kType<T>).clone().contiguous();
    const std::int64_t outputs = values.size(0), inputs = values.numel() / outputs;
    T* const out = values.template data_ptr<T>();
    for (std::int64_t o = 0; o < outputs; ++o) {
      for (std::int64_t i = 0; i < inputs; ++i) out[o * inputs + i] = host[static_cast<std::size_t>(offset + i * stride + o)];
    }
    tensor.copy_(values);
  });
  std::size_t at = 0;
  for (const auto& [name, tensor] : to.buffers().named()) {
    const at::Tensor values = tensor.detach().to(at::kCPU, kType<T>).clone().contiguous();
    std::copy_n(statistics.data() + at, values.numel(), values.template data_ptr<T>());
    tensor.copy_(values);
    at += static_cast<std::size_t>(values.numel());
  }
}

template <typename T>
std::vector<T> Network<T>::logits(std::int64_t rows) const {
  std::vector<T> host(static_cast<std::size_t>(rows * options_.fusion.classes));
  backend_.download(host.data(), logits(), static_cast<std::int64_t>(host.size() * sizeof(T)));
  return host;
}

template class Network<float>;
template class Network<double>;

}  // namespace fusion::stacked
