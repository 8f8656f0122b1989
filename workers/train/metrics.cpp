#include "workers/train/metrics.h"

namespace fusion {

ConfusionMatrix::ConfusionMatrix(std::int64_t classes) : classes_(classes), counts_(static_cast<std::size_t>(classes * classes)) {}

void ConfusionMatrix::add(std::span<const std::int64_t> labels, std::span<const std::int64_t> predictions) {
  for (std::size_t i = 0; i < labels.size(); ++i) ++counts_[static_cast<std::size_t>(labels[i] * classes_ + predictions[i])];
  rows_ += static_cast<std::int64_t>(labels.size());
}

ConfusionMatrix::ClassCounts ConfusionMatrix::counts_of(std::int64_t c) const {
  ClassCounts of_class{count(c, c), 0, 0};
  for (std::int64_t other = 0; other < classes_; ++other) {
    of_class.labels += count(c, other);
    of_class.predictions += count(other, c);
  }
  return of_class;
}

double ConfusionMatrix::ClassCounts::precision() const {
  return predictions == 0 ? 0 : static_cast<double>(true_positives) / static_cast<double>(predictions);
}

double ConfusionMatrix::ClassCounts::recall() const {
  return labels == 0 ? 0 : static_cast<double>(true_positives) / static_cast<double>(labels);
}

double ConfusionMatrix::ClassCounts::f1() const {
  const std::int64_t both = labels + predictions;  // 2 tp + fp + fn
  return both == 0 ? 0 : 2 * static_cast<double>(true_positives) / static_cast<double>(both);
}

double ConfusionMatrix::accuracy() const {
  std::int64_t right = 0;
  for (std::int64_t c = 0; c < classes_; ++c) right += count(c, c);
  return rows_ == 0 ? 0 : static_cast<double>(right) / static_cast<double>(rows_);
}

double ConfusionMatrix::macro_f1() const {
  double sum = 0;
  std::int64_t present = 0;
  for (std::int64_t c = 0; c < classes_; ++c) {
    const ClassCounts of_class = counts_of(c);
    if (of_class.labels + of_class.predictions == 0) continue;
    sum += of_class.f1();
    ++present;
  }
  return present == 0 ? 0 : sum / static_cast<double>(present);
}

double ConfusionMatrix::weighted_f1() const {
  double sum = 0;
  for (std::int64_t c = 0; c < classes_; ++c) {
    const ClassCounts of_class = counts_of(c);
    sum += of_class.f1() * static_cast<double>(of_class.labels);
  }
  return rows_ == 0 ? 0 : sum / static_cast<double>(rows_);
}

double ConfusionMatrix::score(Metric metric) const {
  switch (metric) {
    case Metric::accuracy: return accuracy();
    case Metric::weighted_f1: return weighted_f1();
    case Metric::macro_f1: return macro_f1();
  }
  return 0;
}

}  // namespace fusion
