#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/fusion_network.h"
#include "space/architecture.h"
#include "space/training_options.h"
#include "workers/data/features.h"

namespace fusion::bench {

/// One setting in which trainers are compared: what a dataset and a study would say.
struct Shape {
  std::string name;
  std::string what;  ///< for people
  TapWidths widths;
  std::int64_t rows = 0;
  std::int64_t classes = 0;
  TrainingOptions options;

  std::int64_t steps_per_epoch() const { return (rows + options.batch - 1) / options.batch; }
};

/// AV-MNIST as the reference searches it, twice with the published networks' 24 channels, and NTU RGB+D.
std::vector<Shape> all_shapes();

/// `count` architectures of 1, 2, 3, 4, 1, ... steps. Every tap and activation comes about equally often: costs are averages over the
/// space, not those of lucky draws.
std::vector<Architecture> architectures_of(const Shape& shape, std::size_t count);

/// Normal numbers, each tap's first column shifted by what the label follows from: something is learned, so that losses of two trainers
/// agree only if both learn it in the same way.
FeatureSplit make_split(const Shape& shape, std::int64_t rows, std::uint64_t seed);
/// The first rows of a split; shares its memory.
FeatureSplit first_rows(const FeatureSplit& split, std::int64_t rows);

/// Floating-point operations (a multiplication and an addition are two) that one row costs in the matrix products of one training step:
/// forward, weight gradients, gradients of the hidden layers. None towards the features: they are frozen.
double product_flops_per_row(const Architecture& architecture, const Shape& shape);

}  // namespace fusion::bench
