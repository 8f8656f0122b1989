#include "space/study.h"

namespace fusion {

namespace {

nlohmann::json object_or_empty(JsonReader& reader, std::string_view key, bool required) {
  return reader.object(key, required).value();
}

}  // namespace

RetryBudget RetryBudget::read(JsonReader& study) {
  RetryBudget budget;
  const nlohmann::json* given = study.raw("retries");
  if (given == nullptr) return budget;
  if (!given->is_object()) return of(static_cast<int>(study.integer("retries", 0, 100, budget.failures)));
  JsonReader reader = study.object("retries");
  const bool each = reader.has("failed") || reader.has("oom");
  if (each && reader.has("failures")) reader.fail("failures", "expected either this, for failed and oom together, or failed and oom, each for itself");
  const auto count = [&reader](std::string_view key, int fallback) { return static_cast<int>(reader.integer(key, 0, 100, fallback)); };
  budget.failures = count("failures", budget.failures);
  budget.failed = count("failed", each ? budget.failed : budget.failures);
  budget.oom = count("oom", each ? budget.oom : budget.failures);
  if (each) budget.failures = budget.failed + budget.oom;
  budget.lost = count("lost", budget.lost);
  reader.finish();
  return budget;
}

nlohmann::json RetryBudget::to_json() const {
  if (failed == failures && oom == failures) return {{"failures", failures}, {"lost", lost}};
  return {{"failed", failed}, {"oom", oom}, {"lost", lost}};
}

PauseOptions PauseOptions::read(JsonReader& reader) {
  PauseOptions options;
  options.failures = static_cast<int>(reader.integer("failures", 0, 1'000'000, options.failures));
  options.within_s = static_cast<int>(reader.integer("within_s", 1, 10'000'000, options.within_s));
  reader.finish();
  return options;
}

nlohmann::json PauseOptions::to_json() const { return {{"failures", failures}, {"within_s", within_s}}; }

StudySpec StudySpec::read(JsonReader& reader) {
  StudySpec spec;
  spec.name = reader.text("name");
  if (reader.has("name") && (spec.name.empty() || spec.name.size() > 200)) reader.fail("name", "expected 1 to 200 characters");
  spec.dataset = reader.text("dataset");
  spec.space = object_or_empty(reader, "space", false);
  spec.strategy = object_or_empty(reader, "strategy", true);
  JsonReader training = reader.object("training");
  spec.training = TrainingOptions::read(training);
  JsonReader early_stopping = reader.object("early_stopping");
  spec.early_stopping = EarlyStoppingOptions::read(early_stopping);
  if (spec.early_stopping.policy != EarlyStoppingPolicy::none && spec.early_stopping.min_epochs >= spec.training.epochs) {
    early_stopping.fail("min_epochs", "expected less than /training/epochs, which is " + std::to_string(spec.training.epochs) +
                                          ", got " + std::to_string(spec.early_stopping.min_epochs) + "; no trial could be stopped early");
  }
  spec.seed = reader.seed("seed", spec.seed);
  spec.priority = static_cast<int>(reader.integer("priority", -1000, 1000, spec.priority));
  spec.retries = RetryBudget::read(reader);
  JsonReader pause_on = reader.object("pause_on");
  spec.pause_on = PauseOptions::read(pause_on);
  spec.parallel = static_cast<int>(reader.integer("parallel", 1, 100'000, spec.parallel));
  reader.raw("$comment");
  reader.finish();
  return spec;
}

nlohmann::json StudySpec::to_json() const {
  return {{"name", name},         {"dataset", dataset},   {"space", space},     {"strategy", strategy},
          {"training", training.to_json()}, {"early_stopping", early_stopping.to_json()}, {"seed", seed}, {"priority", priority}, {"retries", retries.to_json()},
          {"pause_on", pause_on.to_json()}, {"parallel", parallel}};
}

}  // namespace fusion
