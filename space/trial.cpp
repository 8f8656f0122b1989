#include "space/trial.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "base/random.h"

namespace fusion {

bool is_final(TrialState state) {
  return state == TrialState::completed || state == TrialState::failed || state == TrialState::cancelled;
}

bool can_follow(TrialState from, TrialState to) {
  switch (from) {
    case TrialState::queued:
      // completed: a late result of a lease that was thought lost
      return to == TrialState::leased || to == TrialState::cancelled || to == TrialState::completed;
    case TrialState::leased:
      return to != TrialState::leased;
    default:
      return false;
  }
}

nlohmann::json Score::to_json() const {
  nlohmann::json json = {{"dev_score", dev_score},
                         {"best_epoch", best_epoch},
                         {"dev_accuracy", dev_accuracy},
                         {"dev_weighted_f1", dev_weighted_f1},
                         {"dev_macro_f1", dev_macro_f1},
                         {"train_loss", train_loss},
                         {"train_s", train_s},
                         {"parameters", parameters}};
  if (test_score) json["test_score"] = *test_score;
  return json;
}

Score Score::read(JsonReader& reader) {
  constexpr double kLargest = std::numeric_limits<double>::max();
  Score score;
  score.dev_score = reader.number("dev_score", 0, 1);
  score.best_epoch = static_cast<int>(reader.integer("best_epoch", 0, 1 << 30));
  score.dev_accuracy = reader.number("dev_accuracy", 0, 1);
  score.dev_weighted_f1 = reader.number("dev_weighted_f1", 0, 1);
  score.dev_macro_f1 = reader.number("dev_macro_f1", 0, 1);
  if (reader.has("test_score")) score.test_score = reader.number("test_score", 0, 1);
  score.train_loss = reader.number("train_loss", -kLargest, kLargest);
  score.train_s = reader.number("train_s", 0, kLargest);
  score.parameters = reader.integer("parameters", 0, INT64_MAX);
  reader.raw("test_score");
  reader.finish();
  return score;
}

std::uint64_t trial_seed(std::uint64_t study_seed, const Architecture& architecture, int replica) {
  const std::uint64_t hash = mix_text(mix(study_seed, static_cast<std::uint64_t>(replica)), canonical_text(architecture));
  return hash & ((std::uint64_t{1} << 53) - 1);
}

std::uint64_t order_seed(std::uint64_t study_seed) { return mix_text(study_seed, "order") >> 11; }

}  // namespace fusion
