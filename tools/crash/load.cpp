#include "tools/crash/load.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace fusion {

using nlohmann::json;

namespace {

constexpr std::chrono::milliseconds kLookEvery{200};

json strategy(Rng& rng, std::int64_t one_study_trials) {
  if (one_study_trials > 0) {
    return {{"name", "mfas"}, {"iterations", 5}, {"levels", 4}, {"samples", std::max<std::int64_t>(one_study_trials / 20, 5)},
            {"surrogate", {{"name", "ridge"}}}};
  }
  switch (rng.below(4)) {
    case 0: return {{"name", "random"}, {"trials", 20 + rng.below(80)}};
    case 1: return {{"name", "exhaustive"}, {"max_steps", 1}};
    case 2: return {{"name", "mfas"}, {"iterations", 2}, {"levels", 3}, {"samples", 5 + rng.below(10)}, {"surrogate", {{"name", "ridge"}}}};
    default:
      return {{"name", "mfas"}, {"iterations", 1}, {"levels", 3}, {"samples", 10},
              {"surrogate", {{"name", "lstm"}, {"hidden", 10}, {"embedding", 10}, {"epochs", 2}}}};
  }
}

}  // namespace

json load_study(Rng& rng, int n, std::int64_t one_study_trials) {
  json study{{"name", "load " + std::to_string(n)},
             {"dataset", "features.json"},
             {"strategy", strategy(rng, one_study_trials)},
             {"training", {{"epochs", 3}, {"evaluate_test", true}}},
             {"retries", {{"failures", 2}, {"lost", 100}}},
             {"pause_on", {{"failures", 0}}},  // who dies here dies of us
             {"seed", rng.next_u32()},
             {"priority", rng.below(3)},
             {"parallel", 8 + rng.below(57)}};
  if (one_study_trials == 0 && rng.below(4) == 0) study["early_stopping"] = {{"policy", "asha"}, {"reduction", 2}};
  return study;
}

StudyLoad::StudyLoad(Scene& scene, std::uint64_t seed, int at_once, std::int64_t one_study_trials)
    : scene_(scene), rng_(seed, 1), at_once_(one_study_trials > 0 ? 1 : at_once), one_study_trials_(one_study_trials) {}

void StudyLoad::look() {
  looked_ = std::chrono::steady_clock::now();
  running_ = scene_.number("SELECT count(*) FROM studies WHERE state <> 'completed'");
}

void StudyLoad::end() {
  ended_ = true;
  look();
  last_stored_ = running_.value_or(0) > 0;
}

void StudyLoad::keep() {
  if (scene_.submission() == true) {
    running_.reset();  // look again
    last_stored_ = ended_;
  }
  if (!running_ || std::chrono::steady_clock::now() - looked_ > kLookEvery) look();
  if (last_stored_ || scene_.submitting() || running_.value_or(0) >= at_once_) return;
  scene_.submit(load_study(rng_, made_++, one_study_trials_));
  running_.reset();
}

bool StudyLoad::all_completed() { return last_stored_ && !scene_.submitting() && running_ == 0; }

}  // namespace fusion
