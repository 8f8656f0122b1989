#include "space/encoding.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace fusion {

Encoding::Encoding(const SearchSpace& space)
    : modalities_(space.modality_count()),
      with_operation_(space.operations().size() > 1),
      max_steps_(space.max_steps()),
      tap_limit_(space.modality_count(), 0) {
  for (const FusionStep& step : space.step_choices()) {
    for (std::size_t m = 0; m < modalities_; ++m) tap_limit_[m] = std::max(tap_limit_[m], step.taps[m] + 1);
  }
  width_ = modalities_ + 1 + (with_operation_ ? 1 : 0);
  step_width_ = 1 + EnumNames<FusionOp>::kTable.size() + EnumNames<Activation>::kTable.size();
  for (const std::int32_t limit : tap_limit_) step_width_ += static_cast<std::size_t>(limit);
  one_hot_width_ = step_width_ * static_cast<std::size_t>(max_steps_);
}

std::vector<float> Encoding::sequence(const Architecture& architecture) const {
  std::vector<float> numbers;
  numbers.reserve(architecture.steps.size() * width_);
  for (const FusionStep& step : architecture.steps) {
    for (const std::int32_t tap : step.taps) numbers.push_back(static_cast<float>(tap));
    numbers.push_back(static_cast<float>(step.activation));
    if (with_operation_) numbers.push_back(static_cast<float>(step.op));
  }
  return numbers;
}

Architecture Encoding::from_sequence(std::span<const float> numbers) const {
  if (numbers.empty() || numbers.size() % width_ != 0) {
    throw SpaceError("encoding: expected a multiple of " + std::to_string(width_) + " numbers, got " + std::to_string(numbers.size()));
  }
  const auto whole = [](float number, std::size_t limit) {
    if (number != std::floor(number) || number < 0 || number >= static_cast<float>(limit)) {
      throw SpaceError("encoding: expected an integer in [0, " + std::to_string(limit) + "), got " + std::to_string(number));
    }
    return static_cast<std::int32_t>(number);
  };
  Architecture architecture;
  for (std::size_t at = 0; at < numbers.size(); at += width_) {
    FusionStep step;
    for (std::size_t m = 0; m < modalities_; ++m) step.taps.push_back(whole(numbers[at + m], static_cast<std::size_t>(tap_limit_[m])));
    step.activation = static_cast<Activation>(whole(numbers[at + modalities_], EnumNames<Activation>::kTable.size()));
    if (with_operation_) step.op = static_cast<FusionOp>(whole(numbers[at + modalities_ + 1], EnumNames<FusionOp>::kTable.size()));
    architecture.steps.push_back(std::move(step));
  }
  return architecture;
}

std::vector<double> Encoding::one_hot(const Architecture& architecture) const {
  std::vector<double> numbers(one_hot_width_, 0.0);
  for (std::size_t i = 0; i < architecture.steps.size(); ++i) {
    const FusionStep& step = architecture.steps[i];
    std::size_t at = i * step_width_;
    numbers[at++] = 1;
    for (std::size_t m = 0; m < modalities_; ++m) {
      numbers[at + static_cast<std::size_t>(step.taps[m])] = 1;
      at += static_cast<std::size_t>(tap_limit_[m]);
    }
    numbers[at + static_cast<std::size_t>(step.op)] = 1;
    at += EnumNames<FusionOp>::kTable.size();
    numbers[at + static_cast<std::size_t>(step.activation)] = 1;
  }
  return numbers;
}

}  // namespace fusion
