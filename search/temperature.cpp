#include "search/temperature.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "search/portable_math.h"

namespace fusion {

int TemperatureSchedule::index(int iteration, int level) const {
  return iteration * (counter == TemperatureCounter::reference ? iterations : levels) + level;
}

double TemperatureSchedule::after(int iteration, int level) const {
  const double n = index(iteration, level) + 1;
  return (initial - final) * portable_exp(-(n * n) / (decay * decay)) + final;
}

double TemperatureSchedule::in_force(int iteration, int level) const {
  if (iteration == 0 && level == 0) return initial;
  return level > 0 ? after(iteration, level - 1) : after(iteration - 1, levels - 1);
}

std::vector<float> draw_probabilities(std::span<const double> scores, double temperature) {
  std::vector<float> values;
  for (const double score : scores) {
    values.push_back(std::isfinite(score) && score > 0 ? static_cast<float>(score) : 0.0f);
  }
  const auto sum_of = [&values] { return static_cast<float>(std::accumulate(values.begin(), values.end(), 0.0)); };
  const auto uniform = [&values] {
    return std::vector<float>(values.size(), 1.0f / static_cast<float>(values.size()));
  };
  const float total = sum_of();
  if (total == 0) return uniform();
  const double exponent = 1 / temperature;
  for (float& value : values) {
    const float share = value / total;
    value = static_cast<float>(portable_exp(portable_log(static_cast<double>(share)) * exponent));
  }
  const float powers = sum_of();
  if (powers == 0) return uniform();
  for (float& value : values) value /= powers;
  return values;
}

namespace {

/// One round of numpy's algorithm: as many uniform numbers as indices are missing, looked up in the cumulative
/// distribution; repeats within the round are dropped and drawn again in the next.
std::vector<std::size_t> draw_round(const std::vector<double>& weights, std::size_t missing,
                                    const std::function<double()>& uniform) {
  std::vector<double> cumulative(weights.size());
  std::partial_sum(weights.begin(), weights.end(), cumulative.begin());
  const double total = cumulative.back();
  for (double& value : cumulative) value /= total;
  std::vector<double> numbers(missing);
  for (double& number : numbers) number = uniform();
  std::vector<std::size_t> drawn;
  for (const double number : numbers) {
    const auto place = std::upper_bound(cumulative.begin(), cumulative.end(), number);
    const auto index = static_cast<std::size_t>(place - cumulative.begin());
    if (std::find(drawn.begin(), drawn.end(), index) == drawn.end()) drawn.push_back(index);
  }
  return drawn;
}

}  // namespace

std::vector<std::size_t> draw_without_replacement(std::span<const float> probabilities, std::size_t count,
                                                  const std::function<double()>& uniform) {
  std::vector<double> weights(probabilities.begin(), probabilities.end());
  std::vector<std::size_t> found;
  std::vector<bool> taken(weights.size(), false);
  count = std::min(count, weights.size());
  auto positive =
      static_cast<std::size_t>(std::count_if(weights.begin(), weights.end(), [](double w) { return w > 0; }));
  while (found.size() < count) {
    std::size_t wanted = std::min(count, positive) - std::min(found.size(), positive);
    if (wanted == 0) {  // only improbable ones are left
      for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = taken[i] ? 0 : 1;
      positive = weights.size();
      wanted = count - found.size();
    }
    for (const std::size_t index : draw_round(weights, wanted, uniform)) {
      found.push_back(index);
      taken[index] = true;
      weights[index] = 0;
    }
  }
  return found;
}

}  // namespace fusion
