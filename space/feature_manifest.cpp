#include "space/feature_manifest.h"

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/json_reader.h"

namespace fusion {

namespace fs = std::filesystem;

fs::path feature_manifest_path(const fs::path& dataset) {
  const auto make_it = "make it with: fusion-data extract " + dataset.string();
  if (fs::is_directory(dataset)) {
    throw ConfigError(dataset.string() + ": is a folder; name the dataset.json or features.json inside it");
  }
  if (!fs::exists(dataset)) {
    throw ConfigError(dataset.string() + ": there is no such file; a study's dataset is a dataset.json or a features.json");
  }
  const nlohmann::json head = parse_json_file(dataset);
  if (head.is_object() && head.contains("format") && head["format"] == "fusiond-features-1") return dataset;
  fs::path manifest = dataset.parent_path() / "features" / "features.json";
  if (!fs::exists(manifest)) {
    throw ConfigError(manifest.string() + ": the features of this dataset are not there; " + make_it);
  }
  return manifest;
}

std::string manifest_digest(nlohmann::json manifest) {
  if (manifest.is_object()) manifest.erase("digest");
  return sha256_of(manifest.dump());
}

DatasetSpec read_feature_manifest(const fs::path& manifest) {
  const nlohmann::json document = parse_json_file(manifest);
  JsonProblems problems;
  JsonReader reader(document, manifest.string(), problems);
  if (const std::string format = reader.text("format"); format != "fusiond-features-1" && reader.has("format")) {
    reader.fail("format", "expected \"fusiond-features-1\", got \"" + format + "\"");
  }
  DatasetSpec spec = DatasetSpec::read(reader);
  for (const char* split : {"train", "dev"}) {
    if (spec.rows[split] == 0) reader.fail("rows", std::string("the split \"") + split + "\" is missing or empty");
  }
  problems.throw_if_any();
  if (const std::string digest = manifest_digest(document); digest != spec.digest) {
    throw ConfigError(manifest.string() + ": /digest: the content has the digest " + digest + ", not \"" + spec.digest +
                      "\": the file was changed by hand; make it again with fusion-data");
  }
  return spec;
}

}  // namespace fusion
