#include "workers/simulate/planted_formula.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "base/random.h"

// No exp, no log: what the C library rounds in its own way would differ between machines. Square roots are exact everywhere.
namespace fusion {

namespace {

enum class Effect : std::uint64_t { tap = 1, place, pair, activation, operation, chain };

/// Of mean 0 and deviation 1, between -2.45 and 2.45: the sum of two uniform numbers.
double unit(std::uint64_t seed) {
  constexpr double kTwo32 = 0x1p-32;
  const double low = static_cast<double>(seed & 0xffffffffu) * kTwo32, high = static_cast<double>(seed >> 32) * kTwo32;
  return (low + high - 1) * 2.449489742783178;  // sqrt(6)
}

double effect(std::uint64_t landscape, Effect what, std::initializer_list<std::uint64_t> of) {
  std::uint64_t seed = mix(landscape, static_cast<std::uint64_t>(what));
  for (const std::uint64_t part : of) seed = mix(seed, part);
  return unit(seed);
}

std::uint64_t number(std::int32_t tap) { return static_cast<std::uint64_t>(tap); }

}  // namespace

double PlantedFormula::pairs(const FusionStep& step) const {
  double sum = 0;
  for (std::size_t a = 0; a < step.taps.size(); ++a) {
    for (std::size_t b = a + 1; b < step.taps.size(); ++b) {
      sum += effect(landscape_, Effect::pair, {a, number(step.taps[a]), b, number(step.taps[b])});
    }
  }
  return sum;
}

double PlantedFormula::chain(const FusionStep& before, const FusionStep& step) const {
  double sum = 0;
  for (std::size_t m = 0; m < step.taps.size(); ++m) {
    sum += effect(landscape_, Effect::chain, {m, number(before.taps[m]), number(step.taps[m])});
  }
  return 0.5 * sum - (before.taps == step.taps ? 0.8 : 0);
}

double PlantedFormula::step_quality(const Architecture& architecture, std::size_t place) const {
  const FusionStep& step = architecture.steps[place];
  double quality = 0.7 * pairs(step) + 0.5 * effect(landscape_, Effect::activation, {static_cast<std::uint64_t>(step.activation)}) +
                   0.3 * effect(landscape_, Effect::operation, {static_cast<std::uint64_t>(step.op)});
  for (std::size_t m = 0; m < step.taps.size(); ++m) {
    quality += effect(landscape_, Effect::tap, {m, number(step.taps[m])}) + 0.5 * (1 - 1.0 / (1 + step.taps[m])) +
               0.4 * effect(landscape_, Effect::place, {m, number(step.taps[m]), place});
  }
  return place > 0 ? quality + chain(architecture.steps[place - 1], step) : quality;
}

double PlantedFormula::value(const Architecture& architecture) const {
  double sum = 0, squares = 0;
  for (std::size_t i = 0; i < architecture.steps.size(); ++i) {
    const double weight = 1.0 / static_cast<double>(1 + i);
    sum += weight * step_quality(architecture, i);
    squares += weight * weight;
  }
  const auto steps = static_cast<double>(architecture.steps.size());
  const double z = sum / std::sqrt(squares) + 0.8 * (1 - 1 / steps) - 0.05 * (steps - 1);
  return 0.25 + 0.7 * (1 + z / (2 + std::abs(z))) / 2;
}

double PlantedFormula::noisy(const Architecture& architecture, std::uint64_t seed, const char* what) const {
  const std::uint64_t noise = mix_text(mix(landscape_, seed), what);
  return std::clamp(value(architecture) + 0.004 * unit(noise), 0.0, 1.0);
}

std::optional<double> PlantedFormula::score(const Architecture& architecture, std::uint64_t seed) const {
  return noisy(architecture, seed, "dev");
}

std::optional<double> PlantedFormula::test_score(const Architecture& architecture, std::uint64_t seed) const {
  return noisy(architecture, seed, "test");
}

}  // namespace fusion
