#include "workers/data/dataset.h"

#include <nlohmann/json.hpp>
#include <set>

#include "base/files.h"
#include "space/feature_manifest.h"

namespace fusion {

namespace {

constexpr const char* kFormat = "fusiond-dataset-1";

std::map<std::string, std::string> read_files(JsonReader& reader, const char* key) {
  std::map<std::string, std::string> files;
  JsonReader object = reader.object(key, true);
  for (const auto& [array, value] : object.value().items()) files[array] = object.text(array);
  if (files.empty() && reader.has(key)) reader.fail(key, "expected at least one file");
  return files;
}

ModalityManifest read_modality(JsonReader& reader) {
  ModalityManifest m;
  m.name = reader.text("name");
  const nlohmann::json* const shape = reader.raw("shape");
  const bool sizes = shape != nullptr && shape->is_array() && !shape->empty() && shape->size() <= 6;
  if (!sizes) reader.fail("shape", "expected a list of 1 to 6 sizes, such as [1, 28, 28]");
  for (std::size_t i = 0; sizes && i < shape->size(); ++i) {
    const nlohmann::json& size = (*shape)[i];
    if (!size.is_number_integer() || size < 1 || size > (1 << 20)) {
      reader.fail("shape", "expected sizes from 1 to 1048576, got " + size.dump());
      break;
    }
    m.shape.push_back(size.get<std::int64_t>());
  }
  m.mean = reader.number("mean", -1e12, 1e12, 0.0);
  m.std = reader.number("std", 1e-12, 1e12, 1.0);
  if (reader.has("time_axis")) {
    m.time_axis = reader.integer("time_axis", -4, 6);
    if (*m.time_axis == 1) reader.fail("time_axis", "axis 1 holds the channels; expected 0 (none), 2 or more, or a negative number from the back");
  }
  m.files = read_files(reader, "files");
  reader.finish();
  return m;
}

void read_splits(JsonReader& reader, DatasetManifest& manifest) {
  JsonReader splits = reader.object("splits", true);
  for (const auto& [name, value] : splits.value().items()) {
    if (name != "train" && name != "dev" && name != "test") {
      splits.fail(name, "is not a split; there are train, dev and test");
    }
    JsonReader entry = splits.object(name, true);
    SplitRange range{entry.text("of"), entry.integer("begin", 0, INT64_MAX), entry.integer("end", 0, INT64_MAX)};
    if (entry.has("begin") && entry.has("end") && range.begin >= range.end) entry.fail("end", "expected more than begin");
    if (entry.has("of") && !manifest.labels.contains(range.of)) entry.fail("of", "there is no array \"" + range.of + "\" in /labels");
    entry.finish();
    manifest.splits[name] = range;
  }
  for (const char* name : {"train", "dev"}) {
    if (!manifest.splits.contains(name)) reader.fail("splits", std::string("the split \"") + name + "\" is missing");
  }
}

/// Every modality must have every array that has labels, and every file a digest.
void check_references(JsonReader& reader, const DatasetManifest& manifest) {
  std::set<std::string> names;
  const auto digest_of = [&](const std::string& file) {
    if (!manifest.sha256.contains(file)) reader.fail("sha256", "the digest of \"" + file + "\" is missing");
  };
  for (const ModalityManifest& m : manifest.modalities) {
    if (!names.insert(m.name).second) reader.fail("modalities", "the modality \"" + m.name + "\" stands twice");
    for (const auto& [array, file] : manifest.labels) {
      if (!m.files.contains(array)) reader.fail("modalities", "\"" + m.name + "\" has no file for the array \"" + array + "\"");
    }
    for (const auto& [array, file] : m.files) digest_of(file);
  }
  for (const auto& [array, file] : manifest.labels) digest_of(file);
}

}  // namespace

std::int64_t ModalityManifest::row_count() const {
  std::int64_t n = 1;
  for (const std::int64_t size : shape) n *= size;
  return n;
}

DatasetManifest DatasetManifest::read(JsonReader& reader) {
  DatasetManifest manifest;
  const std::string format = reader.text("format");
  if (reader.has("format") && format != kFormat) {
    reader.fail("format", std::string("expected \"") + kFormat + "\", got \"" + format + "\"");
  }
  manifest.name = reader.text("name");
  manifest.digest = reader.text("digest");
  manifest.classes = reader.integer("classes", 2, 1 << 20);
  manifest.class_names = reader.texts("class_names", std::vector<std::string>{});
  if (!manifest.class_names.empty() && static_cast<std::int64_t>(manifest.class_names.size()) != manifest.classes) {
    reader.fail("class_names", "expected " + std::to_string(manifest.classes) + " names, got " +
                                   std::to_string(manifest.class_names.size()));
  }
  reader.raw("parameters");
  for (JsonReader& entry : reader.list("modalities", true)) manifest.modalities.push_back(read_modality(entry));
  if (manifest.modalities.empty()) reader.fail("modalities", "expected at least one");
  manifest.labels = read_files(reader, "labels");
  read_splits(reader, manifest);
  JsonReader digests = reader.object("sha256", true);
  for (const auto& [file, value] : digests.value().items()) manifest.sha256[file] = digests.text(file);
  if (reader.problems().empty()) check_references(reader, manifest);
  reader.finish();
  return manifest;
}

DatasetManifest DatasetManifest::read_file(const std::filesystem::path& file) {
  if (std::filesystem::is_directory(file)) {
    throw ConfigError(file.string() + ": is a folder; name the dataset.json inside it");
  }
  const nlohmann::json document = parse_json_file(file);
  JsonProblems problems;
  JsonReader reader(document, file.string(), problems);
  DatasetManifest manifest = read(reader);
  problems.throw_if_any();
  if (const std::string digest = manifest_digest(document); digest != manifest.digest) {
    throw ConfigError(file.string() + ": /digest: the content has the digest " + digest + ", not \"" + manifest.digest +
                      "\"; if the change was meant, write the new one there");
  }
  return manifest;
}

void write_manifest(const std::filesystem::path& file, nlohmann::json document) {
  document["digest"] = manifest_digest(document);
  write_atomically(file, document.dump(2) + "\n");
}

}  // namespace fusion
