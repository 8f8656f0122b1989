#include "space/manifest_files.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "space/feature_manifest.h"

namespace fusion {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

const json& member(const json& object, const char* key) {
  static const json kNothing;
  if (!object.is_object()) return kNothing;
  const auto found = object.find(key);
  return found == object.end() ? kNothing : *found;
}

std::string text_of(const json& object, const char* key) {
  const json& value = member(object, key);
  return value.is_string() ? value.get<std::string>() : "";
}

ManifestFile named_file(const std::string& path, const std::string& digest, bool manifest, const std::string& what) {
  const fs::path normal = fs::path(path).lexically_normal();
  if (path.empty() || normal.is_absolute()) throw DataError(what + ": expected a path relative to the manifest, got \"" + path + "\"");
  if (!is_digest(digest)) throw DataError(what + ": expected a digest of 64 hexadecimal digits for \"" + path + "\", got \"" + digest + "\"");
  return {normal.generic_string(), digest, manifest};
}

}  // namespace

std::vector<ManifestFile> feature_files(const json& features) {
  std::vector<ManifestFile> files;
  const auto add = [&files](const json& entry, const std::string& split) {
    files.push_back(named_file(text_of(entry, "file"), text_of(entry, "sha256"), false, "the feature manifest's /files/" + split));
  };
  const json& splits = member(features, "files");
  if (!splits.is_object()) throw DataError("the feature manifest has no object /files");
  for (const auto& [split, entry] : splits.items()) {
    add(member(entry, "labels"), split);
    const json& modalities = member(entry, "modalities");
    if (!modalities.is_array()) throw DataError("the feature manifest's /files/" + split + " has no list of modalities");
    for (const json& modality : modalities) add(modality, split);
  }
  return files;
}

std::vector<ManifestFile> input_files(const json& features) {
  const std::string source = text_of(features, "source");
  const json& modalities = member(features, "modalities");
  if (source.empty() || !modalities.is_array()) return {};
  std::vector<ManifestFile> files{named_file(source, text_of(features, "dataset_digest"), true, "the feature manifest's /source")};
  for (const json& modality : modalities) {
    const json& backbone = member(modality, "backbone");
    const std::string file = text_of(backbone, "file");
    if (file.empty()) return {};
    files.push_back(named_file(file, text_of(backbone, "digest"), false, "the feature manifest's backbone of " + text_of(modality, "name")));
  }
  return files;
}

std::vector<ManifestFile> dataset_files(const json& dataset) {
  const json& digests = member(dataset, "sha256");
  if (!digests.is_object()) throw DataError("the dataset's manifest has no object /sha256");
  std::vector<ManifestFile> files;
  for (const auto& [file, digest] : digests.items()) {
    files.push_back(named_file(file, digest.is_string() ? digest.get<std::string>() : "", false, "the dataset's /sha256"));
  }
  return files;
}

std::string path_beside(const std::string& manifest, const std::string& path) {
  return (fs::path(manifest).parent_path() / path).lexically_normal().generic_string();
}

bool is_digest(std::string_view text) {
  return text.size() == 64 && std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_content_of(const ManifestFile& file, std::string_view bytes) {
  if (!file.manifest) return sha256_of(bytes) == file.digest;
  json document = json::parse(bytes, nullptr, false);
  return document.is_object() && text_of(document, "digest") == file.digest && manifest_digest(std::move(document)) == file.digest;
}

}  // namespace fusion
