#pragma once

#include <cstdint>
#include <memory>

#include "tools/bench/shape.h"

namespace fusion::bench {

/// The training loop that a person writes with LibTorch: one candidate, torch::nn::Linear, cat, autograd, torch::optim::Adam with weight
/// decay, the reference's cosine rate set before every step. Features are cached as ours are; each batch takes the rows of the taps it
/// reads with index_select, every tap once. Begins with the weights that our engines begin with, and reads the same rows in the same
/// order. (It draws dropout from LibTorch's generator: losses are comparable without dropout only.)
///
/// The split must outlive it.
class NaiveLoop {
 public:
  NaiveLoop(const Architecture& architecture, const Shape& shape, const TrainingOptions& options, const FeatureSplit& train,
            std::uint64_t seed, std::uint64_t order_seed);
  ~NaiveLoop();
  NaiveLoop(NaiveLoop&&) noexcept;

  /// The next `steps` batches; the first epoch's order is read again and again. Mean loss over their rows.
  double run(std::int64_t steps);

 private:
  struct Loop;
  std::unique_ptr<Loop> loop_;
};

}  // namespace fusion::bench
