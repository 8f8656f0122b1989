#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace fusion {

/// A file that a manifest names (docs/data.md), and what tells whether it is the one that is meant.
struct ManifestFile {
  std::string path;       ///< relative to the manifest's folder, normal; may begin with "../"
  std::string digest;     ///< 64 lower-case hexadecimal digits
  bool manifest = false;  ///< the digest is manifest_digest() of its content; else SHA-256 of its bytes
  bool operator==(const ManifestFile&) const = default;
};

/// Labels and features of every split of a features.json: what a search reads.
std::vector<ManifestFile> feature_files(const nlohmann::json& features);

/// The dataset.json and the backbones behind a features.json, in this order: what a retraining may read beside the features. Empty unless
/// dataset and all backbones are named (imported features name none).
std::vector<ManifestFile> input_files(const nlohmann::json& features);

/// Arrays and labels of a dataset.json, relative to its own folder.
std::vector<ManifestFile> dataset_files(const nlohmann::json& dataset);

/// Where a file lies that is named `path` by a manifest at `manifest`, both relative to one folder; normal.
std::string path_beside(const std::string& manifest, const std::string& path);

/// 64 lower-case hexadecimal digits. What is not must never become a part of a file's name.
bool is_digest(std::string_view text);

/// Whether these bytes are what the digest names.
bool is_content_of(const ManifestFile& file, std::string_view bytes);

// All of them throw DataError with a sentence where a document is not of its form, a digest is none, or a path is absolute.

}  // namespace fusion
