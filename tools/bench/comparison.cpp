#include "tools/bench/comparison.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "tools/bench/cpu_clock.h"
#include "tools/bench/gemm_rate.h"
#include "tools/bench/naive_loop.h"
#include "tools/bench/python_loop.h"

namespace fusion::bench {
namespace {

constexpr std::int64_t kDevRows = 16;     // the engine scores dev once an epoch; so few cost nothing
constexpr std::int64_t kWarmUpSteps = 10;
constexpr double kNaiveRoundS = 0.3;      // CPU seconds of the naive loop in one round

std::vector<NaiveLoop> naive_loops(const Shape& shape, const TrainingOptions& options, const FeatureSplit& train,
                                   std::span<const Architecture> architectures, std::uint64_t order_seed) {
  std::vector<NaiveLoop> loops;
  for (std::size_t i = 0; i < architectures.size(); ++i) {
    loops.emplace_back(architectures[i], shape, options, train, seed_of(i), order_seed);
  }
  return loops;
}

double largest_difference(const Shape& shape, const ComparisonOptions& options, const FeatureSplit& all, std::int64_t rows) {
  TrainingOptions training = shape.options;
  training.dropout = 0;
  const FeatureSplit train = first_rows(all, rows), dev = first_rows(all, kDevRows);
  const std::vector<Architecture> architectures = architectures_of(shape, options.architectures);
  const std::vector<double> ours = options.engine.epoch(architectures, training, shape.classes, train, dev);
  std::vector<NaiveLoop> loops = naive_loops(shape, training, train, architectures, options.engine.order_seed);
  double largest = 0;
  for (std::size_t i = 0; i < loops.size(); ++i) {
    const double theirs = loops[i].run((rows + training.batch - 1) / training.batch);
    const double difference = std::abs(ours[i] - theirs) / std::max(1.0, theirs);
    if (!(difference <= largest)) largest = difference;  // a NaN too
  }
  return largest;
}

}  // namespace

Rounds Comparison::gemm_share() const {
  Rounds shares;
  for (std::size_t i = 0; i < engine.values.size(); ++i) {
    shares.add(flops_per_step / engine.values[i] / gemm_rate.values[i]);
  }
  return shares;
}

LossCheck check_losses(const Shape& shape, const ComparisonOptions& options, bool whole_epoch) {
  const std::int64_t batch = shape.options.batch;
  const FeatureSplit all = make_split(shape, whole_epoch ? shape.rows : 20 * batch, 7);
  return {largest_difference(shape, options, all, batch), largest_difference(shape, options, all, 20 * batch),
          whole_epoch ? largest_difference(shape, options, all, shape.rows) : 0.0};
}

Comparison compare(const Shape& shape, const ComparisonOptions& options) {
  const std::vector<Architecture> architectures = architectures_of(shape, options.architectures);
  const auto candidates = static_cast<double>(architectures.size());
  const std::unique_ptr<PythonLoop> python =
      options.python.empty() ? nullptr : PythonLoop::start(options.python, options.script, shape, architectures);
  const FeatureSplit train = make_split(shape, shape.rows, 7), dev = first_rows(train, kDevRows);
  Comparison result;
  result.shape = shape;
  for (const Architecture& architecture : architectures) {
    result.flops_per_step += product_flops_per_row(architecture, shape) / candidates * static_cast<double>(shape.rows) /
                             static_cast<double>(shape.steps_per_epoch());
  }
  options.engine.epoch(architectures, shape.options, shape.classes, first_rows(train, kWarmUpSteps * shape.options.batch), dev);
  std::vector<NaiveLoop> loops = naive_loops(shape, shape.options, train, architectures, options.engine.order_seed);
  const auto naive_steps = [&](std::int64_t steps) {
    const double begin = cpu_seconds();
    for (NaiveLoop& loop : loops) loop.run(steps);
    return (cpu_seconds() - begin) / (static_cast<double>(steps) * candidates);
  };
  naive_steps(kWarmUpSteps);
  const auto steps = std::max<std::int64_t>(10, std::lround(kNaiveRoundS / (candidates * naive_steps(kWarmUpSteps))));

  const std::array<std::function<void()>, 3> methods{
      [&] {
        result.gemm_rate.add(gemm_rate());
        const double begin = cpu_seconds();
        options.engine.epoch(architectures, shape.options, shape.classes, train, dev);
        result.engine.add((cpu_seconds() - begin) / (static_cast<double>(shape.steps_per_epoch()) * candidates));
      },
      [&] { result.naive.add(naive_steps(steps)); },
      [&] {
        if (python) result.python.add(python->run(steps));
      }};
  const double begin = cpu_seconds();
  for (std::size_t round = 0; round < kLeastRounds || cpu_seconds() - begin < options.cpu_s; ++round) {
    for (std::size_t i = 0; i < methods.size(); ++i) methods[(round + i) % methods.size()]();
  }
  return result;
}

}  // namespace fusion::bench
