#include "tools/fork_document.h"

#include <algorithm>

namespace fusion {

using nlohmann::json;

namespace {

/// `changes` over `before`; an object with another `name` replaces the one that was there, because its members would mean nothing.
json merged(json before, const json& changes) {
  if (!changes.is_object() || !before.is_object()) return changes;
  if (changes.contains("name") && before.contains("name") && changes.at("name") != before.at("name")) return changes;
  for (const auto& [key, value] : changes.items()) {
    if (value.is_null()) before.erase(key);
    else before[key] = before.contains(key) ? merged(before.at(key), value) : value;
  }
  return before;
}

json document_of(const StudyRecord& parent, std::int64_t at, const json& changes) {
  json document = parent.spec.to_json();
  document["dataset"] = parent.dataset_path;
  const std::string suffix = " (fork at " + std::to_string(at) + ")";
  if (parent.spec.name.size() + suffix.size() <= 200) document["name"] = parent.spec.name + suffix;
  for (const auto& [key, value] : changes.items()) {
    const json before = document.contains(key) ? document.at(key) : json();
    if (value.is_null()) document.erase(key);
    else document[key] = before.is_null() ? value : merged(before, value);
  }
  return document;
}

/// What the new study would train otherwise than the parent did.
void check_training(const StudyRecord& parent, const StudySpec& spec, std::vector<std::string>& problems) {
  const json before = parent.spec.training.to_json(), after = spec.training.to_json();
  for (const auto& [key, value] : before.items()) {
    if (key == "evaluate_test" || after.at(key) == value) continue;
    problems.push_back("fork: /training/" + key + ": is " + value.dump() + " in study " + to_string(parent.id) + " and would be " + after.at(key).dump() +
                       "; scores of inherited trials would not compare with new ones: fork at 0, or submit a study of its own");
  }
}

Lineage lineage_of(const StudyRecord& parent, const StudySpec& spec, std::int64_t at) {
  const bool same = spec.strategy == parent.spec.strategy && spec.seed == parent.spec.seed && spec.space == parent.spec.space;
  const std::int64_t known = parent.fork ? parent.fork->observed : 0;  // the parent's strategy went on from these
  return {parent.id, at, same ? std::min(known, at) : at};
}

}  // namespace

ForkRequest ForkRequest::read(const json& document) {
  JsonProblems problems;
  JsonReader reader(document, "fork", problems);
  ForkRequest request;
  if (reader.has("at")) request.at = reader.integer("at", 0, INT64_MAX);
  request.changes = reader.object("changes").value();
  if (request.changes.is_object() && request.changes.contains("dataset")) {
    reader.fail("changes", "/dataset: cannot change in a fork, which goes on with the scores that were got on it; submit a study of its own");
  }
  reader.finish();
  problems.throw_if_any();
  if (!request.changes.is_object()) request.changes = json::object();
  return request;
}

ParsedFork parse_fork(const ForkRequest& request, const StudyRecord& parent, std::int64_t forkable,
                      const std::vector<std::filesystem::path>& roots) {
  const std::int64_t at = request.at.value_or(forkable);
  if (at > forkable) {
    throw ConfigError("fork: /at: expected 0 to " + std::to_string(forkable) + ", the trials of study " + to_string(parent.id) +
                      " that were told so far (up to the first that was cancelled), got " + std::to_string(at));
  }
  ParsedFork fork{parse_study(document_of(parent, at, request.changes), "fork", roots), {}};
  std::vector<std::string> problems;
  if (fork.study.dataset.digest != parent.dataset.digest) {
    problems.push_back("fork: /dataset: the features have digest " + fork.study.dataset.digest + " now, study " + to_string(parent.id) +
                       " was searched on " + parent.dataset.digest + "; bring those back, or submit a study of its own");
  }
  if (at > 0) check_training(parent, fork.study.spec, problems);
  if (!problems.empty()) throw ConfigError(problems);
  fork.study.spec.dataset = parent.spec.dataset;
  fork.lineage = lineage_of(parent, fork.study.spec, at);
  return fork;
}

}  // namespace fusion
