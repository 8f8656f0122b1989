#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/enum_names.h"

namespace fusion {

/// The running number n of a step in the temperature's formula:
///   reference  iteration * iterations + level: what the reference computes. No running counter unless iterations equal
///              levels: with 3 and 4 two values come twice and the search ends warmer
///   repaired   iteration * levels + level: the step's true number
enum class TemperatureCounter : std::uint8_t { reference, repaired };
template <>
struct EnumNames<TemperatureCounter> {
  static constexpr std::array<std::pair<TemperatureCounter, std::string_view>, 2> kTable{
      {{TemperatureCounter::reference, "reference"}, {TemperatureCounter::repaired, "repaired"}}};
};

/// T(n) = (initial - final) exp(-(n + 1)^2 / decay^2) + final. High: draws are nearly uniform; low: nearly greedy.
struct TemperatureSchedule {
  double initial = 10;
  double final = 0.2;
  double decay = 4;
  int iterations = 3;
  int levels = 4;
  TemperatureCounter counter = TemperatureCounter::reference;

  /// The n of a step.
  int index(int iteration, int level) const;
  /// What is set when that step ends, for the next one.
  double after(int iteration, int level) const;
  /// What that step draws with: `initial` for the first, else what the step before set.
  double in_force(int iteration, int level) const;
};

/// The probabilities of the first draw, q_i = score_i / sum score, p_i = q_i^(1/T) / sum q^(1/T), in float32 as the
/// reference computes them (each operation rounded to float32; sums in float64).
///
/// Differs from the reference, which fails there: negative or non-finite scores count as 0, and if all are 0 or all
/// powers vanish in float32 the draw is uniform.
std::vector<float> draw_probabilities(std::span<const double> scores, double temperature);

/// `count` different indices (all of them if there are fewer), in the order drawn, each draw from the renormalised
/// remainder: numpy's `choice(n, count, replace=False, p)`, number for number, if `uniform` gives numpy's stream of
/// numbers. Where fewer than `count` probabilities are positive the rest follows uniformly from the others (numpy refuses).
std::vector<std::size_t> draw_without_replacement(std::span<const float> probabilities, std::size_t count,
                                                  const std::function<double()>& uniform);

}  // namespace fusion
