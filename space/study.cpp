#include "space/study.h"

namespace fusion {

namespace {

nlohmann::json object_or_empty(JsonReader& reader, std::string_view key, bool required) {
  return reader.object(key, required).value();
}

}  // namespace

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
  spec.retries = static_cast<int>(reader.integer("retries", 0, 100, spec.retries));
  spec.parallel = static_cast<int>(reader.integer("parallel", 1, 100'000, spec.parallel));
  reader.raw("$comment");
  reader.finish();
  return spec;
}

nlohmann::json StudySpec::to_json() const {
  return {{"name", name},         {"dataset", dataset},   {"space", space},     {"strategy", strategy},
          {"training", training.to_json()}, {"early_stopping", early_stopping.to_json()}, {"seed", seed}, {"priority", priority}, {"retries", retries},
          {"parallel", parallel}};
}

}  // namespace fusion
