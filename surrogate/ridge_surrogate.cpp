#include "surrogate/ridge_surrogate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "surrogate/observation_set.h"

namespace fusion {

namespace {

/// Solves A x = b for a symmetric positive definite A [n, n], whose lower triangle becomes its Cholesky factor. b
/// becomes x.
void solve_by_cholesky(std::vector<double>& a, std::vector<double>& b) {
  const std::size_t n = b.size();
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j];
      for (std::size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = i == j ? std::sqrt(sum) : sum / a[j * n + j];
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
    b[i] /= a[i * n + i];
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t k = i + 1; k < n; ++k) b[i] -= a[k * n + i] * b[k];
    b[i] /= a[i * n + i];
  }
}

}  // namespace

RidgeSurrogate::RidgeSurrogate(const SearchSpace& space, const RidgeSurrogateOptions& options)
    : encoding_(space),
      options_(options),
      coefficients_(encoding_.one_hot_width(), 0.0),
      feature_means_(encoding_.one_hot_width(), 0.0) {}

FitReport RidgeSurrogate::fit(std::span<const Observation> observations) {
  const auto begin = std::chrono::steady_clock::now();
  const ObservationSet distinct(observations);
  const std::size_t n = encoding_.one_hot_width();
  const auto count = static_cast<double>(distinct.size());
  FitReport report;
  report.observations = static_cast<std::int64_t>(distinct.size());
  report.epochs = 1;
  if (distinct.size() == 0) return report;

  std::vector<std::vector<double>> features;
  std::fill(feature_means_.begin(), feature_means_.end(), 0.0);
  score_mean_ = 0;
  for (const Observation& observation : distinct.all()) {
    features.push_back(encoding_.one_hot(observation.architecture));
    for (std::size_t i = 0; i < n; ++i) feature_means_[i] += features.back()[i] / count;
    score_mean_ += observation.score / count;
  }
  std::vector<double> gram(n * n, 0.0), right(n, 0.0);
  for (std::size_t i = 0; i < n; ++i) gram[i * n + i] = options_.lambda;
  for (std::size_t row = 0; row < features.size(); ++row) {
    std::vector<double> x = features[row];
    for (std::size_t i = 0; i < n; ++i) x[i] -= feature_means_[i];
    for (std::size_t i = 0; i < n; ++i) {
      right[i] += x[i] * (distinct.all()[row].score - score_mean_);
      for (std::size_t j = 0; j <= i; ++j) gram[i * n + j] += x[i] * x[j];
    }
  }
  solve_by_cholesky(gram, right);
  coefficients_ = std::move(right);

  for (std::size_t row = 0; row < features.size(); ++row) {
    const double error = predict_one(features[row]) - distinct.all()[row].score;
    report.loss += error * error / count;
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return report;
}

double RidgeSurrogate::predict_one(const std::vector<double>& features) const {
  double score = score_mean_;
  for (std::size_t i = 0; i < features.size(); ++i) score += (features[i] - feature_means_[i]) * coefficients_[i];
  return std::clamp(score, 0.0, 1.0);
}

std::vector<double> RidgeSurrogate::predict(std::span<const Architecture> candidates) const {
  std::vector<double> scores;
  scores.reserve(candidates.size());
  for (const Architecture& candidate : candidates) scores.push_back(predict_one(encoding_.one_hot(candidate)));
  return scores;
}

}  // namespace fusion
