#include "model/flat_tensors.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

std::int64_t count_of(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

}  // namespace

NamedTensors matching_state(const std::string& subject, const NamedTensors& expected, const NamedTensors& given) {
  NamedTensors found;
  std::vector<std::string> problems;
  for (const auto& [name, like] : expected) {
    const std::string wanted = name;
    const auto same = std::find_if(given.begin(), given.end(), [&](const auto& entry) { return entry.first == wanted; });
    const std::string where = subject + ": state \"" + name + "\": ";
    if (same == given.end()) {
      problems.push_back(where + "it is missing; was this checkpoint written by another version or optimiser?");
    } else if (same->second.sizes() != like.sizes() || same->second.scalar_type() != like.scalar_type()) {
      problems.push_back(where + "expected " + std::to_string(like.numel()) + " numbers of type " + c10::toString(like.scalar_type()) +
                         " in " + std::to_string(like.dim()) + " dimensions, got " + std::to_string(same->second.numel()) +
                         " of type " + c10::toString(same->second.scalar_type()) + " in " + std::to_string(same->second.dim()));
    } else {
      found.push_back(*same);
    }
  }
  if (!problems.empty()) throw ModelError(join_problems(problems));
  return found;
}

FlatTensors::FlatTensors(const Shapes& shapes, const at::TensorOptions& options, bool trainable) {
  const at::NoGradGuard no_grad;
  std::int64_t total = 0;
  for (const auto& [name, shape] : shapes) total += count_of(shape);
  flat_ = at::zeros({total}, options);
  std::int64_t begin = 0;
  for (const auto& [name, shape] : shapes) {
    const std::int64_t count = count_of(shape);
    named_.emplace_back(name, flat_.narrow(0, begin, count).view(shape).detach());
    begin += count;
  }
  set_trainable(trainable);
}

std::int64_t FlatTensors::count() const { return flat_.defined() ? flat_.numel() : 0; }

bool FlatTensors::contains(const std::string& name) const {
  for (const auto& [known, tensor] : named_) {
    if (known == name) return true;
  }
  return false;
}

const at::Tensor& FlatTensors::at(const std::string& name) const {
  std::string names;
  for (const auto& [known, tensor] : named_) {
    if (known == name) return tensor;
    names += (names.empty() ? "" : ", ") + known;
  }
  throw ModelError("tensor \"" + name + "\": there is none of that name; there are " + (names.empty() ? "none" : names));
}

std::vector<at::Tensor> FlatTensors::tensors() const {
  std::vector<at::Tensor> all;
  for (const auto& [name, tensor] : named_) all.push_back(tensor);
  return all;
}

at::Tensor FlatTensors::snapshot() const { return flat_.defined() ? flat_.clone() : at::Tensor(); }

void FlatTensors::restore(const at::Tensor& snapshot) {
  if (!flat_.defined()) return;
  const at::NoGradGuard no_grad;
  flat_.copy_(snapshot);
}

void FlatTensors::set_trainable(bool trainable) {
  for (auto& [name, tensor] : named_) tensor.set_requires_grad(trainable);
}

void FlatTensors::clear_gradients() {
  for (auto& [name, tensor] : named_) tensor.mutable_grad().reset();
}

}  // namespace fusion
