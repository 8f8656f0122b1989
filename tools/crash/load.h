#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "base/random.h"
#include "tools/crash/scene.h"

namespace fusion {

/// Keeps a scene's daemon busy: so many studies at once, a new one for each that ends. They differ in strategy, surrogate, early stopping
/// and size, by the seed. Or one study of so many trials, so that everything happens to it.
class StudyLoad {
 public:
  /// `one_study_trials`: 0: many small ones, `at_once` at a time.
  StudyLoad(Scene& scene, std::uint64_t seed, int at_once, std::int64_t one_study_trials);

  /// Submits what is missing, takes notice of what was submitted. Call it often; it returns at once.
  void keep();
  /// No more studies, but for a last one where none is under way: so that something has still to be completed, by a daemon that answers.
  void end();
  /// Submits nothing, and everything that was stored has been completed; something of it after end().
  bool all_completed();

 private:
  void look();

  Scene& scene_;
  Rng rng_;
  int at_once_;
  std::int64_t one_study_trials_;
  int made_ = 0;
  bool ended_ = false, last_stored_ = false;
  SteadyTime looked_{};
  std::optional<std::int64_t> running_;
};

/// The n-th study of such a load.
nlohmann::json load_study(Rng& rng, int n, std::int64_t one_study_trials);

}  // namespace fusion
