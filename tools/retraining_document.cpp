#include "tools/retraining_document.h"

#include "space/feature_manifest.h"
#include "tools/daemon_config.h"

namespace fusion {

using nlohmann::json;

namespace {

constexpr std::int64_t kMaxSeed = (std::int64_t{1} << 53) - 1;
constexpr const char* kExportFormat = "fusiond-export-1";

/// The manifest that `named` means must be the one whose features the configuration was found on, and have its taps.
void read_dataset(JsonReader& reader, std::string_view key, const std::vector<std::filesystem::path>& roots, const std::string& named,
                  const std::string& digest, NewRetraining& retraining) {
  try {
    retraining.dataset_path = feature_manifest_path(resolve_below(roots, named)).string();
    retraining.dataset = read_feature_manifest(retraining.dataset_path);
    if (retraining.dataset.digest != digest) {
      reader.fail(key, "the features of " + retraining.dataset_path + " have the digest " + retraining.dataset.digest +
                           ", those that the configuration was found on have " + digest + "; name their dataset");
      return;
    }
    retraining.dataset.check(retraining.architecture);
  } catch (const ConfigError& error) {
    for (const std::string& problem : error.problems()) reader.fail(key, problem);
  } catch (const Error& error) {
    reader.fail(key, error.what());
  }
}

void take_trial(JsonReader& reader, const RetrainingSource& source, const std::vector<std::filesystem::path>& roots,
                NewRetraining& retraining) {
  const std::size_t before = reader.problems().list().size();
  const std::int64_t number = reader.integer("trial", 1, INT64_MAX);
  if (reader.problems().list().size() > before) return;
  if (!source.trial || !source.study) return reader.fail("trial", "there is no trial " + std::to_string(number));
  const Trial& trial = *source.trial;
  const StudyRecord& study = *source.study;
  if (trial.state != TrialState::completed || !trial.score) {
    return reader.fail("trial", "trial " + std::to_string(number) + " is " + std::string(name_of(trial.state)) +
                                    "; only a completed one can be retrained");
  }
  retraining.study = study.id;
  retraining.trial = trial.id;
  retraining.architecture = trial.architecture;
  retraining.seed = trial.seed & static_cast<std::uint64_t>(kMaxSeed);
  json of_trial = {{"id", trial.id.value}, {"dev_score", trial.score->dev_score}, {"seed", trial.seed}};
  of_trial["test_score"] = trial.score->test_score ? json(*trial.score->test_score) : json();
  retraining.lineage = {{"study", {{"id", study.id.value}, {"name", study.spec.name}}}, {"trial", of_trial}};
  read_dataset(reader, reader.has("dataset") ? "dataset" : "trial", roots, reader.text("dataset", study.dataset_path), study.dataset.digest,
               retraining);
}

/// The member as it stands; null if it is not there.
json member_of(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() ? *found : json();
}

void take_entry(JsonReader& reader, JsonReader& file, const JsonReader& entry, const DatasetSpec& dataset, NewRetraining& retraining) {
  const json& value = entry.value();
  try {
    const json steps = member_of(value, "steps");
    retraining.architecture = dataset.architecture_from_json(steps.is_null() ? member_of(value, "triplets") : json{{"steps", steps}});
  } catch (const Error& error) {
    file.fail("architectures", entry.pointer() + ": " + error.what());
  }
  const json seed = member_of(value, "seed"), study = member_of(file.value(), "study");
  if (seed.is_number_unsigned()) retraining.seed = seed.get<std::uint64_t>() & static_cast<std::uint64_t>(kMaxSeed);
  json of_trial = {{"id", member_of(value, "trial")}};
  for (const char* key : {"dev_score", "test_score", "seed", "rank"}) of_trial[key] = member_of(value, key);
  retraining.lineage = {{"source", reader.text("source", "an exported file")},
                        {"study", {{"id", member_of(study, "id")}, {"name", member_of(study, "name")}}},
                        {"trial", of_trial}};
}

void take_export(JsonReader& reader, const std::vector<std::filesystem::path>& roots, NewRetraining& retraining) {
  const std::size_t before = reader.problems().list().size();
  JsonReader file = reader.object("export", true);
  const std::string format = file.text("format");
  if (file.has("format") && format != kExportFormat) {
    file.fail("format", "expected \"" + std::string(kExportFormat) + "\", what fusionctl export writes, got \"" + format + "\"");
  }
  JsonReader dataset_reader = file.object("dataset", true);
  const std::vector<JsonReader> entries = file.list("architectures", true);
  const std::int64_t rank = reader.integer("rank", 1, 1'000'000, 1);
  if (reader.problems().list().size() > before) return;
  const DatasetSpec dataset = DatasetSpec::read(dataset_reader);
  if (static_cast<std::size_t>(rank) > entries.size()) {
    reader.fail("rank", "the file has " + std::to_string(entries.size()) + " architectures, got " + std::to_string(rank));
  }
  if (reader.problems().list().size() > before) return;
  take_entry(reader, file, entries[static_cast<std::size_t>(rank - 1)], dataset, retraining);
  const json beside = member_of(member_of(file.value(), "study"), "dataset_file");
  const std::string named = reader.text("dataset", beside.is_string() ? beside.get<std::string>() : "");
  if (named.empty()) return reader.fail("dataset", "the file does not say where the dataset lies; name its dataset.json or features.json");
  if (reader.problems().list().size() == before) read_dataset(reader, "dataset", roots, named, dataset.digest, retraining);
}

}  // namespace

std::optional<TrialId> trial_named(const json& document) {
  const json trial = member_of(document, "trial");
  if (!trial.is_number_integer() || trial.get<std::int64_t>() < 1) return std::nullopt;
  return TrialId{trial.get<std::int64_t>()};
}

NewRetraining parse_retraining(const json& document, const RetrainingSource& source, const std::vector<std::filesystem::path>& roots,
                               const std::filesystem::path& artifacts) {
  JsonProblems problems;
  JsonReader reader(document, "retraining", problems);
  NewRetraining retraining;
  retraining.artifacts = artifacts.string();
  JsonReader options = reader.object("options");
  retraining.options = RetrainingOptions::read(options);
  retraining.priority = static_cast<int>(reader.integer("priority", -1'000'000, 1'000'000, 0));
  retraining.retries = static_cast<int>(reader.integer("retries", 0, 1'000, retraining.retries));
  const bool of_trial = reader.has("trial"), of_file = reader.has("export");
  if (of_trial == of_file) {
    reader.fail("trial", "expected either this, the number of a completed trial, or /export, what fusionctl export wrote");
    for (const char* key : {"trial", "export", "rank", "source", "dataset"}) reader.raw(key);
  } else if (of_trial) {
    take_trial(reader, source, roots, retraining);
    reader.raw("dataset");
  } else {
    take_export(reader, roots, retraining);
    for (const char* key : {"rank", "source", "dataset"}) reader.raw(key);
  }
  if (reader.has("seed")) retraining.seed = static_cast<std::uint64_t>(reader.integer("seed", 0, kMaxSeed));
  reader.finish();
  problems.throw_if_any();
  return retraining;
}

}  // namespace fusion
