#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "space/training_options.h"
#include "workers/train/plain_kernels.h"
#include "workers/train/schedule.h"

namespace fusion {

/// Adam's numbers for every step of a training; all trials of a pack have the same.
template <typename T>
class StepPlan {
 public:
  /// `rows`: of an epoch. The options must outlive it.
  StepPlan(const TrainingOptions& options, std::int64_t rows) : options_(options), schedule_(options, rows) {}

  const plain::AdamStep<T>& adam(std::int64_t step) {
    while (static_cast<std::int64_t>(steps_.size()) <= step) extend();
    return steps_[static_cast<std::size_t>(step)];
  }
  /// Of a step whose numbers were asked for.
  double learning_rate(std::int64_t step) const { return rates_[static_cast<std::size_t>(step)]; }

 private:
  void extend() {
    constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8;
    const double rate = schedule_.next();
    const auto t = static_cast<double>(steps_.size() + 1);
    rates_.push_back(rate);
    steps_.push_back({static_cast<T>(kBeta1), static_cast<T>(1 - kBeta1), static_cast<T>(kBeta2), static_cast<T>(1 - kBeta2),
                      static_cast<T>(kEps), static_cast<T>(options_.weight_decay),
                      static_cast<T>(1 / std::sqrt(1 - std::pow(kBeta2, t))), static_cast<T>(rate / (1 - std::pow(kBeta1, t)))});
  }

  const TrainingOptions& options_;
  CosineSchedule schedule_;
  std::vector<plain::AdamStep<T>> steps_;
  std::vector<double> rates_;
};

}  // namespace fusion
