#pragma once

#include <algorithm>
#include <vector>

namespace fusion::bench {

/// One figure, once per round.
struct Rounds {
  std::vector<double> values;

  void add(double value) { values.push_back(value); }
  bool empty() const { return values.empty(); }
  double lowest() const { return *std::min_element(values.begin(), values.end()); }
  double highest() const { return *std::max_element(values.begin(), values.end()); }
  double median() const {
    std::vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    const std::size_t middle = sorted.size() / 2;
    return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }
};

/// Round by round, so that both sides of a quotient saw the same state of the machine.
inline Rounds quotients(const Rounds& above, const Rounds& below) {
  Rounds result;
  for (std::size_t i = 0; i < above.values.size(); ++i) result.add(above.values[i] / below.values[i]);
  return result;
}

}  // namespace fusion::bench
