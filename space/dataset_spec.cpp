#include "space/dataset_spec.h"

#include <nlohmann/json.hpp>
#include <set>

namespace fusion {

using nlohmann::json;

namespace {

ModalitySpec read_modality(JsonReader& reader) {
  ModalitySpec modality;
  modality.name = reader.text("name");
  modality.has_logits = reader.boolean("has_logits", false);
  std::set<std::string> names;
  for (JsonReader& tap : reader.list("taps", true)) {
    TapSpec spec{tap.text("name"), tap.integer("width", 1, 1 << 24)};
    if (!names.insert(spec.name).second) tap.fail("name", "the tap \"" + spec.name + "\" stands twice");
    modality.taps.push_back(std::move(spec));
  }
  if (modality.taps.empty()) reader.fail("taps", "expected at least one tap");
  return modality;
}

}  // namespace

DatasetSpec DatasetSpec::read(JsonReader& reader) {
  DatasetSpec spec;
  spec.name = reader.text("name");
  spec.digest = reader.text("digest");
  spec.classes = reader.integer("classes", 2, 1 << 20);
  spec.class_names = reader.texts("class_names", std::vector<std::string>{});
  if (!spec.class_names.empty() && static_cast<std::int64_t>(spec.class_names.size()) != spec.classes) {
    reader.fail("class_names", "expected " + std::to_string(spec.classes) + " names, got " + std::to_string(spec.class_names.size()));
  }
  std::set<std::string> names;
  for (JsonReader& modality : reader.list("modalities", true)) {
    spec.modalities.push_back(read_modality(modality));
    if (!names.insert(spec.modalities.back().name).second) {
      modality.fail("name", "the modality \"" + spec.modalities.back().name + "\" stands twice");
    }
  }
  if (spec.modalities.size() < 2) reader.fail("modalities", "expected at least two modalities");
  JsonReader rows = reader.object("rows", true);
  for (const auto& [split, count] : rows.value().items()) spec.rows[split] = rows.integer(split, 0, INT64_MAX);
  return spec;
}

json DatasetSpec::to_json() const {
  json list = json::array();
  for (const ModalitySpec& modality : modalities) {
    json taps = json::array();
    for (const TapSpec& tap : modality.taps) taps.push_back({{"name", tap.name}, {"width", tap.width}});
    list.push_back({{"name", modality.name}, {"has_logits", modality.has_logits}, {"taps", taps}});
  }
  return {{"name", name}, {"digest", digest}, {"classes", classes}, {"class_names", class_names}, {"modalities", list}, {"rows", rows}};
}

void DatasetSpec::check(const Architecture& architecture) const {
  if (architecture.steps.empty() || architecture.steps.size() > kMaxSteps) {
    throw SpaceError("architecture: expected 1 to " + std::to_string(kMaxSteps) + " steps, got " +
                     std::to_string(architecture.steps.size()));
  }
  for (std::size_t i = 0; i < architecture.steps.size(); ++i) {
    const FusionStep& step = architecture.steps[i];
    const std::string where = "architecture " + canonical_text(architecture) + ": step " + std::to_string(i) + ": ";
    if (step.taps.size() != modalities.size()) {
      throw SpaceError(where + "expected a tap of each of the " + std::to_string(modalities.size()) + " modalities, got " +
                       std::to_string(step.taps.size()));
    }
    for (std::size_t m = 0; m < modalities.size(); ++m) {
      const auto limit = static_cast<std::int32_t>(modalities[m].taps.size());
      if (step.taps[m] < 0 || step.taps[m] >= limit) {
        throw SpaceError(where + "modality \"" + modalities[m].name + "\" has taps 0 to " + std::to_string(limit - 1) + ", got " +
                         std::to_string(step.taps[m]));
      }
    }
  }
}

json DatasetSpec::describe(const Architecture& architecture) const {
  check(architecture);
  json steps = json::array();
  for (const FusionStep& step : architecture.steps) {
    json taps = json::object();
    for (std::size_t m = 0; m < modalities.size(); ++m) {
      taps[modalities[m].name] = modalities[m].taps[static_cast<std::size_t>(step.taps[m])].name;
    }
    steps.push_back({{"taps", taps}, {"op", name_of(step.op)}, {"activation", name_of(step.activation)}});
  }
  return {{"steps", steps}, {"triplets", to_triplets(architecture)}};
}

Architecture DatasetSpec::architecture_from_json(const json& value) const {
  if (value.is_array()) {
    Architecture architecture = architecture_from_triplets(value);
    check(architecture);
    return architecture;
  }
  JsonProblems problems;
  JsonReader reader(value, "architecture", problems);
  reader.raw("triplets");
  Architecture architecture;
  for (JsonReader& entry : reader.list("steps", true)) {
    FusionStep step;
    step.op = entry.choice<FusionOp>("op", FusionOp::concat_fc);
    step.activation = entry.choice<Activation>("activation");
    JsonReader taps = entry.object("taps", true);
    for (const ModalitySpec& modality : modalities) {
      const std::string tap_name = taps.text(modality.name);
      std::int32_t index = -1;
      std::string known;
      for (std::size_t i = 0; i < modality.taps.size(); ++i) {
        if (modality.taps[i].name == tap_name) index = static_cast<std::int32_t>(i);
        known += " " + modality.taps[i].name;
      }
      if (index < 0 && taps.has(modality.name)) taps.fail(modality.name, "there is no tap \"" + tap_name + "\"; there are:" + known);
      step.taps.push_back(index);
    }
    taps.finish();
    entry.finish();
    architecture.steps.push_back(std::move(step));
  }
  reader.finish();
  if (!problems.empty()) throw SpaceError(join_problems(problems.list()));
  check(architecture);
  return architecture;
}

}  // namespace fusion
