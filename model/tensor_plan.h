#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/random.h"
#include "model/flat_tensors.h"

namespace fusion {

/// Writes a tensor's initial values, drawn from the generator.
using Fill = std::function<void(const at::Tensor&, Rng&)>;

Fill fill_zeros();
Fill fill_ones();
Fill fill_normal(double deviation);
Fill fill_uniform(double bound);

/// The tensors of a network that is being put together from parts. Each part declares its tensors once, with name, shape, initial
/// values and the member that will hold it; `make` then lays all of them out flat, hands them to their holders and fills them.
///
///     plan.parameter("bert.clsToken", {1, 1, width}, cls_, fill_normal(0.02));
///
/// Where a part takes the beginning of its tensors' names, that is empty or ends in a dot. Holders must stay where they
/// are until `make` returned. A tensor's values depend on the seed and its name alone, so a network with one more part has the same
/// weights elsewhere.
class TensorPlan {
 public:
  using Shape = std::vector<std::int64_t>;

  void parameter(const std::string& name, const Shape& shape, at::Tensor& holder, Fill fill);
  void buffer(const std::string& name, const Shape& shape, at::Tensor& holder, Fill fill);

  struct Made {
    FlatTensors parameters, buffers;
  };
  /// Parameters require gradients. `tensors` gives device and floating type (float where it says nothing).
  Made make(std::uint64_t seed, const at::TensorOptions& tensors) const;

 private:
  struct Entry {
    std::string name;
    Shape shape;
    at::Tensor* holder;
    Fill fill;
  };
  static FlatTensors lay_out(const std::vector<Entry>& entries, std::uint64_t seed, const at::TensorOptions& tensors, bool trainable);

  std::vector<Entry> parameters_, buffers_;
};

/// A fully connected layer, y = x W^T + b over the last dimension: `name` + .weight [out, in], .bias [out].
struct LinearLayer {
  enum class Start {
    torch,   ///< weight and bias uniform in +-1 / sqrt(in)
    normal,  ///< weight N(0, 0.02^2), bias 0
    xavier   ///< weight uniform in +-sqrt(6 / (in + out)), bias 0
  };
  at::Tensor weight, bias;

  void declare(TensorPlan& plan, const std::string& name, std::int64_t in, std::int64_t out, Start start);
  at::Tensor forward(const at::Tensor& x) const;
};

}  // namespace fusion
