#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace fusion {

/// Name and tensor, in an order that means something (the order of construction).
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// The tensors of `given` that have the names of `expected`, in its order. Throws ModelError naming, all at once, each that is missing or
/// of another shape or type; the message begins with `subject`. Others do not matter.
NamedTensors matching_state(const std::string& subject, const NamedTensors& expected, const NamedTensors& given);

/// A network's parameters, or its buffers, as views into one flat storage: to save, restore or count all of them is one operation,
/// and small networks stay within few cache lines. The tensors are leaves for autograd.
///
/// Copying shares the storage. Not thread-safe.
class FlatTensors {
 public:
  using Shapes = std::vector<std::pair<std::string, std::vector<std::int64_t>>>;

  FlatTensors() = default;
  /// Zeros of these shapes, in this order. `trainable`: require gradients.
  FlatTensors(const Shapes& shapes, const at::TensorOptions& options, bool trainable);

  const NamedTensors& named() const { return named_; }
  std::size_t size() const { return named_.size(); }
  std::int64_t count() const;  ///< elements of all tensors
  bool contains(const std::string& name) const;
  /// Throws ModelError naming the tensors there are.
  const at::Tensor& at(const std::string& name) const;
  /// The tensors alone, for an optimiser.
  std::vector<at::Tensor> tensors() const;

  /// All values as one vector, a copy; and back. A snapshot is of use only to tensors of the same shapes.
  at::Tensor snapshot() const;
  void restore(const at::Tensor& snapshot);

  void set_trainable(bool trainable);
  /// Forgets the gradients (they become undefined, not zero).
  void clear_gradients();

 private:
  at::Tensor flat_;
  NamedTensors named_;
};

}  // namespace fusion
