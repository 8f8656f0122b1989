#include "tools/bench/shape.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randn.h>

#include "model/torch_compat.h"

namespace fusion::bench {
namespace {

TapWidths avmnist(std::int64_t channels) {
  TapWidths widths(2);
  for (const std::int64_t factor : {1, 2, 4, 8, 16}) widths[0].push_back(factor * channels);
  for (const std::int64_t factor : {1, 2, 4}) widths[1].push_back(factor * channels);
  return widths;
}

TrainingOptions options_of(int width, int batch) {
  TrainingOptions options;
  options.epochs = 1;
  options.width = width;
  options.batch = batch;
  return options;
}

}  // namespace

std::vector<Shape> all_shapes() {
  const TapWidths ntu{{512, 1024, 2048, 2048}, {128, 256, 512, 1024}};
  return {{"r16_b32", "AV-MNIST, the reference: 3 channels, R 16, batch 32", avmnist(3), 55'000, 10, options_of(16, 32)},
          {"r64_b128", "AV-MNIST, wide: 24 channels, R 64, batch 128", avmnist(24), 55'000, 10, options_of(64, 128)},
          {"r128_b128", "AV-MNIST, wide: 24 channels, R 128, batch 128", avmnist(24), 55'000, 10, options_of(128, 128)},
          {"ntu_r128", "NTU RGB+D: taps 512-2048 and 128-1024, R 128, batch 128, 4,096 rows", ntu, 4'096, 60, options_of(128, 128)}};
}

std::vector<Architecture> architectures_of(const Shape& shape, std::size_t count) {
  std::vector<Architecture> architectures(count);
  const std::size_t firsts = shape.widths[0].size(), seconds = shape.widths[1].size();
  std::size_t made = 0;
  for (std::size_t a = 0; a < count; ++a) {
    for (std::size_t s = 0; s <= a % 4; ++s, ++made) {
      FusionStep& step = architectures[a].steps.emplace_back();
      step.taps = {static_cast<std::int32_t>(made % firsts), static_cast<std::int32_t>((made + made / firsts) % seconds)};
      step.activation = (made / 2) % 2 == 0 ? Activation::relu : Activation::sigmoid;
    }
  }
  return architectures;
}

FeatureSplit make_split(const Shape& shape, std::int64_t rows, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  at::Generator generator = at::detail::createCPUGenerator(seed);
  FeatureSplit split;
  split.rows = rows;
  const at::Tensor told = at::randn({rows}, generator, at::kFloat);  // what every tap tells of the label
  for (const auto& of_modality : shape.widths) {
    auto& taps = split.taps.emplace_back();
    for (const std::int64_t width : of_modality) {
      taps.push_back(at::randn({rows, width}, generator, at::kFloat));
      taps.back().select(1, 0).add_(told, 2);
    }
  }
  split.logits.resize(shape.widths.size());
  const auto last = static_cast<double>(shape.classes - 1);
  split.labels = told.add(2).mul(last / 4).clamp(0, last).to(at::kLong);
  return split;
}

FeatureSplit first_rows(const FeatureSplit& split, std::int64_t rows) {
  FeatureSplit first = split;
  first.rows = rows;
  for (auto& of_modality : first.taps) {
    for (at::Tensor& tap : of_modality) tap = tap.narrow(0, 0, rows);
  }
  first.labels = first.labels.narrow(0, 0, rows);
  return first;
}

double product_flops_per_row(const Architecture& architecture, const Shape& shape) {
  const double width = shape.options.width;
  double products = 3 * width * static_cast<double>(shape.classes);  // of the classifier: forward, weights, last hidden layer
  bool first = true;
  for (const FusionStep& step : architecture.steps) {
    double inputs = first ? 0 : width;
    for (std::size_t m = 0; m < step.taps.size(); ++m) {
      inputs += static_cast<double>(shape.widths[m][static_cast<std::size_t>(step.taps[m])]);
    }
    products += 2 * inputs * width + (first ? 0 : width * width);
    first = false;
  }
  return 2 * products;
}

}  // namespace fusion::bench
