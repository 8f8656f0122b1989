#include "workers/train/evaluation.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace fusion {

using nlohmann::json;

SplitEvaluation::SplitEvaluation(std::int64_t classes) : classes_(classes), confusion_(classes) {}

void SplitEvaluation::add(const at::Tensor& logits, const at::Tensor& labels) {
  TORCH_CHECK(logits.dim() == 2 && logits.size(1) == classes_ && labels.dim() == 1 && labels.size(0) == logits.size(0),
              "expected logits [B, ", classes_, "] and labels [B], got ", logits.sizes(), " and ", labels.sizes());
  const at::Tensor scores = logits.detach().to(c10::kCPU, c10::kDouble).contiguous();
  const at::Tensor truth = labels.to(c10::kCPU, c10::kLong).contiguous();
  const double* const numbers = scores.data_ptr<double>();
  for (std::int64_t i = 0; i < scores.numel(); ++i) {
    if (!std::isfinite(numbers[i])) {
      throw ModelError("evaluation: row " + std::to_string(confusion_.rows() + i / classes_) + ": the logit of class " +
                       std::to_string(i % classes_) + " is not a finite number");
    }
  }
  for (std::int64_t row = 0; row < truth.size(0); ++row) add_row(numbers + row * classes_, truth.data_ptr<std::int64_t>()[row]);
}

void SplitEvaluation::add_row(const double* logits, std::int64_t label) {
  const double* const end = logits + classes_;
  const double* const largest = std::max_element(logits, end);
  const std::int64_t predicted = largest - logits;
  confusion_.add(std::span(&label, 1), std::span(&predicted, 1));
  double sum = 0;
  std::int64_t before = 0;  // classes that come before the label's
  for (std::int64_t c = 0; c < classes_; ++c) {
    sum += std::exp(logits[c] - *largest);
    if (logits[c] > logits[label] || (logits[c] == logits[label] && c < label)) ++before;
  }
  loss_sum_ += std::log(sum) + *largest - logits[label];
  if (before < 5) ++within_five_;
}

std::vector<double> SplitEvaluation::sums() const {
  std::vector<double> sums{loss_sum_, static_cast<double>(within_five_)};
  for (std::int64_t truth = 0; truth < classes_; ++truth) {
    for (std::int64_t predicted = 0; predicted < classes_; ++predicted) sums.push_back(static_cast<double>(confusion_.count(truth, predicted)));
  }
  return sums;
}

void SplitEvaluation::set_sums(const std::vector<double>& sums) {
  TORCH_CHECK(static_cast<std::int64_t>(sums.size()) == classes_ * classes_ + 2, "expected the sums of an evaluation of ", classes_, " classes");
  loss_sum_ = sums[0];
  within_five_ = static_cast<std::int64_t>(sums[1]);
  confusion_ = ConfusionMatrix(classes_);
  for (std::int64_t i = 0; i < classes_ * classes_; ++i) {
    const auto rows = static_cast<std::size_t>(sums[static_cast<std::size_t>(i) + 2]);
    confusion_.add(std::vector<std::int64_t>(rows, i / classes_), std::vector<std::int64_t>(rows, i % classes_));
  }
}

double SplitEvaluation::top5() const { return rows() == 0 ? 0 : static_cast<double>(within_five_) / static_cast<double>(rows()); }

double SplitEvaluation::loss() const { return rows() == 0 ? 0 : loss_sum_ / static_cast<double>(rows()); }

json SplitEvaluation::to_json(const std::vector<std::string>& class_names) const {
  json counts = json::array(), classes = json::array();
  for (std::int64_t truth = 0; truth < classes_; ++truth) {
    json row = json::array();
    for (std::int64_t predicted = 0; predicted < classes_; ++predicted) row.push_back(confusion_.count(truth, predicted));
    counts.push_back(std::move(row));
    const ConfusionMatrix::ClassCounts of_class = confusion_.counts_of(truth);
    classes.push_back({{"name", class_names.empty() ? std::to_string(truth) : class_names.at(static_cast<std::size_t>(truth))},
                       {"rows", of_class.labels},
                       {"precision", of_class.precision()},
                       {"recall", of_class.recall()},
                       {"f1", of_class.f1()}});
  }
  return {{"rows", rows()},
          {"accuracy", confusion_.accuracy()},
          {"top5", top5()},
          {"weighted_f1", confusion_.weighted_f1()},
          {"macro_f1", confusion_.macro_f1()},
          {"loss", loss()},
          {"confusion", std::move(counts)},
          {"classes", std::move(classes)}};
}

}  // namespace fusion
