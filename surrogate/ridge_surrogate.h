#pragma once

#include <string_view>
#include <vector>

#include "space/encoding.h"
#include "surrogate/surrogate.h"

namespace fusion {

struct RidgeSurrogateOptions {
  double lambda = 1.0;  ///< weight of the squared norm of the coefficients; positive
};

/// Linear regression with an L2 penalty on Encoding::one_hot, in float64 and closed form:
///
///   w = (X'X + lambda I)^-1 X'y on centred X and y,   prediction = clamp(mean y + (x - mean x) w, 0, 1)
///
/// Needs no seed, fits anew each time in milliseconds, and cannot see how steps act together: a baseline to hold the
/// LSTM to, and good enough for small budgets. Before the first fit everything is predicted to be 0.5.
class RidgeSurrogate final : public Surrogate {
 public:
  RidgeSurrogate(const SearchSpace& space, const RidgeSurrogateOptions& options);

  FitReport fit(std::span<const Observation> observations) override;
  std::vector<double> predict(std::span<const Architecture> candidates) const override;
  std::string_view name() const override { return "ridge"; }

 private:
  double predict_one(const std::vector<double>& features) const;

  Encoding encoding_;
  RidgeSurrogateOptions options_;
  std::vector<double> coefficients_, feature_means_;
  double score_mean_ = 0.5;
};

}  // namespace fusion
