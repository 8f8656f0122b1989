#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/id.h"
#include "space/architecture.h"

namespace fusion {

/// What stands in for training: the scores of architectures, known without a network. Immutable after it was made; any thread.
///
/// All figures are functions of the architecture and the trial's seed alone, bit for bit the same on every machine.
class SimulatedObjective {
 public:
  virtual ~SimulatedObjective() = default;

  /// What the architecture is worth, without the noise of one training; nullopt where it is not known.
  virtual std::optional<double> truth(const Architecture& architecture) const = 0;
  /// What training it with this seed gives, in [0, 1]: `truth` and the noise. nullopt where `truth` is.
  virtual std::optional<double> score(const Architecture& architecture, std::uint64_t seed) const = 0;
  /// The dev score after each of so many epochs, at least one. The highest is `score`. Empty where `truth` is nullopt.
  virtual std::vector<double> curve(const Architecture& architecture, std::uint64_t seed, int epochs) const;
  /// On the test split, and weights to train; what is not known is nullopt, or 0.
  virtual std::optional<double> test_score(const Architecture&, std::uint64_t) const { return std::nullopt; }
  virtual std::int64_t parameters(const Architecture&) const { return 0; }

  /// For people: "formula 7", "table.db, study 1".
  virtual std::string name() const = 0;
};

/// A learning curve that ends at `score`, rising all the way. How fast depends on the architecture, so curves cross: who leads early does
/// not always lead in the end.
std::vector<double> rising_curve(double score, const Architecture& architecture, int epochs);

/// "formula", "formula:7" (another landscape), else the path of a database with a study's scores (score_table.h). `study`: which one, where
/// it has several; none for a formula. `option` is the command line's name for that, for sentences. Throws ConfigError, StoreError.
std::unique_ptr<const SimulatedObjective> make_objective(const std::string& text, std::optional<StudyId> study, const std::string& option);

}  // namespace fusion
