#include "workers/simulate/objective.h"

#include <charconv>

#include "base/error.h"
#include "base/random.h"
#include "workers/simulate/planted_formula.h"
#include "workers/simulate/score_table.h"

namespace fusion {

std::vector<double> rising_curve(double score, const Architecture& architecture, int epochs) {
  Rng rng(mix_text(0, canonical_text(architecture)));
  const double depth = rng.uniform(0.3, 0.7), speed = rng.uniform(1, 9);  // where it begins, and how soon it levels off
  const auto risen = [&](double share) { return 1 - depth / (1 + speed * share); };
  std::vector<double> curve;
  for (int epoch = 1; epoch < epochs; ++epoch) curve.push_back(score * risen(static_cast<double>(epoch) / epochs) / risen(1));
  curve.push_back(score);
  return curve;
}

std::vector<double> SimulatedObjective::curve(const Architecture& architecture, std::uint64_t seed, int epochs) const {
  const std::optional<double> last = score(architecture, seed);
  return last ? rising_curve(*last, architecture, epochs) : std::vector<double>();
}

std::unique_ptr<const SimulatedObjective> make_objective(const std::string& text, std::optional<StudyId> study, const std::string& option) {
  constexpr std::string_view kFormula = "formula";
  if (text != kFormula && !text.starts_with("formula:")) {
    return std::make_unique<ScoreTable>(ScoreTable::open(text, study, option));
  }
  if (study) throw ConfigError(option + ": chooses a study of a table of scores; a formula has none");
  std::uint64_t landscape = 0;
  if (text != kFormula) {
    const char* end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data() + kFormula.size() + 1, end, landscape);
    if (error != std::errc() || at != end) {
      throw ConfigError("\"" + text + "\": expected formula, formula:N with a number N that chooses the landscape, or the path of a database");
    }
  }
  return std::make_unique<PlantedFormula>(landscape);
}

}  // namespace fusion
