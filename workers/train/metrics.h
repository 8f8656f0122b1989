#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "space/training_options.h"

namespace fusion {

/// Counts of (true class, predicted class), and the scores that follow from them, in doubles.
///
/// F1 of class c = 2 tp / (2 tp + fp + fn); classes that occur neither as label nor as prediction are left out of the macro mean
/// (scikit-learn's convention). Weighted F1 weighs by the number of labels of the class. No rows: every score is 0.
class ConfusionMatrix {
 public:
  explicit ConfusionMatrix(std::int64_t classes);

  /// Equally long; all in [0, classes).
  void add(std::span<const std::int64_t> labels, std::span<const std::int64_t> predictions);

  std::int64_t rows() const { return rows_; }
  std::int64_t count(std::int64_t label, std::int64_t prediction) const {
    return counts_[static_cast<std::size_t>(label * classes_ + prediction)];
  }
  double accuracy() const;
  double macro_f1() const;
  double weighted_f1() const;
  double score(Metric metric) const;

  struct ClassCounts {
    std::int64_t true_positives, labels, predictions;
    double precision() const;  ///< 0 if the class was never predicted
    double recall() const;     ///< 0 if there is no row of it
    double f1() const;
  };
  ClassCounts counts_of(std::int64_t c) const;

 private:

  std::int64_t classes_;
  std::int64_t rows_ = 0;
  std::vector<std::int64_t> counts_;  ///< [label][prediction]
};

}  // namespace fusion
