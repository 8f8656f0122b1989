#include "model/plateau_schedule.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.h"

namespace fusion {

PlateauSchedule::PlateauSchedule(double rate, const PlateauOptions& options) : options_(options), rate_(rate) {
  std::vector<std::string> problems;
  const auto expect = [&](bool right, const char* what, double got) {
    if (!right) problems.push_back(std::string("plateau schedule: ") + what + ", got " + std::to_string(got));
  };
  expect(rate > 0, "rate: expected a positive number", rate);
  expect(options.factor > 0 && options.factor < 1, "factor: expected a number in (0, 1)", options.factor);
  expect(options.patience >= 0, "patience: expected at least 0 epochs", static_cast<double>(options.patience));
  expect(options.threshold >= 0 && options.threshold < 1, "threshold: expected a number in [0, 1)", options.threshold);
  expect(options.min_rate >= 0, "min_rate: expected at least 0", options.min_rate);
  if (!problems.empty()) throw ModelError(join_problems(problems));
}

double PlateauSchedule::step(double loss) {
  if (loss < best_ * (1 - options_.threshold)) {
    best_ = loss;
    bad_epochs_ = 0;
  } else {
    ++bad_epochs_;
  }
  if (bad_epochs_ > options_.patience) {
    const double reduced = std::max(rate_ * options_.factor, options_.min_rate);
    if (rate_ - reduced > 1e-8) rate_ = reduced;
    bad_epochs_ = 0;
  }
  return rate_;
}

NamedTensors PlateauSchedule::state() const {
  const at::Tensor values = at::empty({3}, at::TensorOptions().dtype(c10::kDouble));
  double* const out = values.data_ptr<double>();
  out[0] = rate_;
  out[1] = best_;
  out[2] = static_cast<double>(bad_epochs_);
  return {{"plateau", values}};
}

void PlateauSchedule::load_state(const NamedTensors& state) {
  const at::Tensor values = matching_state("plateau schedule", this->state(), state)[0].second.contiguous();
  const double* const in = values.data_ptr<double>();
  rate_ = in[0];
  best_ = in[1];
  bad_epochs_ = static_cast<std::int64_t>(in[2]);
}

}  // namespace fusion
