#include "workers/train/training_data.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/cross_entropy_loss.h>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

void check_split(const FeatureSplit& split, const std::string& name, const TrainingData& data, bool multitask,
                 std::vector<std::string>& problems) {
  const std::string subject = "features of split \"" + name + "\": ";
  if (split.rows < 1) return problems.push_back(subject + "expected at least one row, got " + std::to_string(split.rows));
  for (std::size_t m = 0; m < split.taps.size(); ++m) {
    for (std::size_t i = 0; i < split.taps[m].size(); ++i) {
      const at::Tensor& tap = split.taps[m][i];
      if (tap.dim() != 2 || tap.size(0) != split.rows || (tap.scalar_type() != at::kFloat && tap.scalar_type() != at::kBFloat16) ||
          !tap.is_contiguous()) {
        problems.push_back(subject + "modality " + std::to_string(m) + ", tap " + std::to_string(i) + ": expected float32 or bfloat16 [" +
                           std::to_string(split.rows) + ", width], got " + c10::toString(tap.scalar_type()) + " " +
                           c10::str(tap.sizes()));
      }
    }
    if (!multitask) continue;
    if (m >= split.logits.size() || !split.logits[m].defined()) {
      problems.push_back(subject + "multitask training needs the logits of every backbone, modality " + std::to_string(m) +
                         " has none; extract the features again with logits, or turn multitask off");
    } else if (split.logits[m].dim() != 2 || split.logits[m].size(0) != split.rows || split.logits[m].size(1) != data.classes) {
      problems.push_back(subject + "logits of modality " + std::to_string(m) + ": expected [" + std::to_string(split.rows) + ", " +
                         std::to_string(data.classes) + "], got " + c10::str(split.logits[m].sizes()));
    }
  }
  if (split.labels.dim() != 1 || split.labels.size(0) != split.rows || split.labels.scalar_type() != at::kLong ||
      !split.labels.is_contiguous()) {
    return problems.push_back(subject + "expected one int64 label a row");
  }
  const auto labels = std::span(split.labels.data_ptr<std::int64_t>(), static_cast<std::size_t>(split.rows));
  const auto [low, high] = std::minmax_element(labels.begin(), labels.end());
  if (*low < 0 || *high >= data.classes) {
    problems.push_back(subject + "labels: expected 0 to " + std::to_string(data.classes - 1) + ", got " +
                       std::to_string(*low < 0 ? *low : *high));
  }
}

}  // namespace

TrainingData training_data(const FeatureSet& features) {
  return {features.spec().classes, features.split("train"), features.split("dev"),
          features.has("test") ? &features.split("test") : nullptr};
}

void check_training(const TrainingOptions& options, const TrainingData& data) {
  std::vector<std::string> problems;
  if (options.epochs < 1) problems.push_back("training: epochs: expected at least 1, got " + std::to_string(options.epochs));
  if (options.batch < 1) problems.push_back("training: batch: expected at least 1, got " + std::to_string(options.batch));
  if (!(options.dropout >= 0 && options.dropout < 1)) {
    problems.push_back("training: dropout: expected a number in [0, 1), got " + std::to_string(options.dropout));
  }
  check_split(data.train, "train", data, options.multitask, problems);
  check_split(data.dev, "dev", data, options.multitask, problems);
  if (options.evaluate_test && !data.test) problems.push_back("training: evaluate_test: there is no split \"test\"");
  if (options.evaluate_test && data.test) check_split(*data.test, "test", data, options.multitask, problems);
  if (options.batchnorm && std::min<std::int64_t>(options.batch, data.train.rows) < 2) {
    problems.push_back("training: batchnorm needs batches of at least two rows");
  }
  if (!problems.empty()) throw ModelError(join_problems(problems));
}

TapWidths tap_widths(const FeatureSplit& split) {
  TapWidths widths;
  for (const auto& modality : split.taps) {
    auto& of_modality = widths.emplace_back();
    for (const at::Tensor& tap : modality) of_modality.push_back(tap.size(1));
  }
  return widths;
}

std::int64_t rows_per_epoch(const TrainingOptions& options, const FeatureSplit& train) {
  return options.batchnorm && train.rows % options.batch == 1 ? train.rows - 1 : train.rows;
}

double stored_logits_loss(const FeatureSplit& split) {
  const at::NoGradGuard no_grad;
  double sum = 0;
  for (const at::Tensor& logits : split.logits) sum += at::cross_entropy_loss(logits, split.labels).item<double>();
  return sum;
}

}  // namespace fusion
