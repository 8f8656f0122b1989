#include "workers/train/weight_bank.h"

#include "model/torch_compat.h"

namespace fusion {
namespace {

/// The reference's names of activations in keys.
std::string short_name(Activation activation) {
  return activation == Activation::leaky_relu ? "lrelu" : std::string(name_of(activation));
}

bool same_shapes(const NamedTensors& a, const NamedTensors& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].first != b[i].first || a[i].second.sizes() != b[i].second.sizes()) return false;
  }
  return true;
}

}  // namespace

std::string WeightBank::key(const FusionNetwork& network, std::size_t step) {
  const FusionStep& of_step = network.architecture().steps[step];
  return std::to_string(step) + (of_step.op == FusionOp::glu ? ".G_" : ".L_") + std::to_string(network.input_width(step)) + "_" +
         std::to_string(network.options().width) + ".A_" + short_name(of_step.activation);
}

std::vector<std::string> WeightBank::load(FusionNetwork& network) const {
  const at::NoGradGuard no_grad;
  std::vector<std::string> loaded;
  for (std::size_t i = 0; i < network.architecture().steps.size(); ++i) {
    const auto known = steps_.find(key(network, i));
    if (known == steps_.end()) continue;
    const NamedTensors into = network.shared_tensors(i);
    if (!same_shapes(known->second, into)) continue;  // with and without batch normalisation share a key
    for (std::size_t t = 0; t < into.size(); ++t) into[t].second.copy_(known->second[t].second);
    loaded.push_back(known->first);
  }
  return loaded;
}

void WeightBank::store(const FusionNetwork& network) {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < network.architecture().steps.size(); ++i) {
    NamedTensors copies;
    for (const auto& [name, tensor] : network.shared_tensors(i)) {
      copies.emplace_back(name, tensor.detach().to(c10::kCPU).clone());
    }
    steps_[key(network, i)] = std::move(copies);
  }
}

std::vector<std::string> WeightBank::keys() const {
  std::vector<std::string> all;
  for (const auto& [key, tensors] : steps_) all.push_back(key);
  return all;
}

}  // namespace fusion
