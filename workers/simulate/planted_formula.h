#pragma once

#include <string>

#include "workers/simulate/objective.h"

namespace fusion {

/// Made-up scores with a structure that a good strategy can find, over any search space: no file is needed.
///
///     quality of step i = sum over modalities  tap(m, t) + 0.5 (1 - 1/(1+t)) + 0.4 place(m, t, i)
///                       + sum over pairs of modalities  0.7 pair(m, t, m', t')
///                       + 0.5 activation(a) + 0.3 operation(o)
///                       + where there is a step before: sum over modalities 0.5 chain(m, t before, t), and -0.8 if all taps are the same
///     z     = sum_i quality_i / (1+i)  /  sqrt(sum_i 1/(1+i)^2)  +  0.8 (1 - 1/S) - 0.05 (S - 1)          S steps
///     truth = 0.25 + 0.7 (1 + z / (2 + |z|)) / 2
///     score = truth + 0.004 noise(seed)
///
/// tap, place, pair, activation, operation, chain and noise are numbers of mean 0 and deviation 1, each drawn from the landscape's number
/// and what stands in its brackets. So: each tap is good or bad by itself (deep ones a little better), some go well together, the
/// first steps matter most, more steps help less and less and beyond four not at all, and two trainings of one architecture differ a little.
class PlantedFormula final : public SimulatedObjective {
 public:
  explicit PlantedFormula(std::uint64_t landscape) : landscape_(landscape) {}

  std::optional<double> truth(const Architecture& architecture) const override { return value(architecture); }
  std::optional<double> score(const Architecture& architecture, std::uint64_t seed) const override;
  /// As `score`, with a noise of its own.
  std::optional<double> test_score(const Architecture& architecture, std::uint64_t seed) const override;
  std::string name() const override { return "formula " + std::to_string(landscape_); }

 private:
  double value(const Architecture& architecture) const;
  double step_quality(const Architecture& architecture, std::size_t place) const;
  double pairs(const FusionStep& step) const;
  double chain(const FusionStep& before, const FusionStep& step) const;
  double noisy(const Architecture& architecture, std::uint64_t seed, const char* what) const;

  std::uint64_t landscape_;
};

}  // namespace fusion
