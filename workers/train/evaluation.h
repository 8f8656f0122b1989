#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "workers/train/metrics.h"

namespace fusion {

/// What a split's logits say about a model: one split of `RetrainingScore::evaluation`. Sums are kept as doubles on the host, so the scores do
/// not depend on how the rows were cut into batches.
///
/// The prediction of a row is its largest logit, the first of several. A row counts for top5 if fewer than five logits are larger than its
/// label's (or equal and before it); with five classes or fewer that is every row.
class SplitEvaluation {
 public:
  explicit SplitEvaluation(std::int64_t classes);

  /// logits [B, classes] of any floating type, labels [B] int64, on any device. Throws ModelError naming the row whose logits are not finite.
  void add(const at::Tensor& logits, const at::Tensor& labels);

  /// All that it has counted, for evaluations of parts of a split to be added up: their sums, element by element, are those of the whole.
  std::vector<double> sums() const;
  void set_sums(const std::vector<double>& sums);

  std::int64_t rows() const { return confusion_.rows(); }
  const ConfusionMatrix& confusion() const { return confusion_; }
  double score(Metric metric) const { return confusion_.score(metric); }
  double top5() const;
  double loss() const;  ///< mean cross entropy; 0 without rows

  /// {rows, accuracy, top5, weighted_f1, macro_f1, loss, confusion: [truth][predicted], classes: [{name, rows, precision, recall, f1}]}.
  /// `class_names` is empty (a class then is called by its number) or has one name per class.
  nlohmann::json to_json(const std::vector<std::string>& class_names) const;

 private:
  void add_row(const double* logits, std::int64_t label);

  std::int64_t classes_;
  ConfusionMatrix confusion_;
  std::int64_t within_five_ = 0;
  double loss_sum_ = 0;
};

}  // namespace fusion
