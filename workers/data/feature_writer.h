#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/tensor_files.h"
#include "model/flat_tensors.h"
#include "space/dataset_spec.h"
#include "workers/data/features.h"

namespace fusion {

/// One split's part of features.json: which files hold it.
struct FeatureFile {
  std::string file;  ///< relative to the manifest's folder
  std::string sha256;
};

/// A modality's tensors as they are stored: float32, or the taps (all but "logits") in bfloat16, rounded to nearest even.
NamedTensors as_stored(const NamedTensors& tensors, TapType type);

/// Writes a feature manifest and the files it names (docs/data.md) into one folder.
///
/// A file is called <split>-<what>-<key>.safetensors, the key being the start of the digest of whatever made it; the whole digest
/// stands in the file's metadata, and so does the digest of its content. So a file that is there is used again if it is whole, and files of other keys do no harm.
/// Not thread-safe.
class FeatureWriter {
 public:
  /// `force`: make everything again.
  FeatureWriter(std::filesystem::path folder, bool force) : folder_(std::move(folder)), force_(force) {}

  /// The file made from `key` (any text), if it is there, whole, finite, of these tensor names and shapes, and what the last manifest
  /// said of it. Its tensors are then mapped in that order.
  std::optional<NamedTensors> find(const std::string& split, const std::string& what, const std::string& key,
                                   const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& expected) const;
  /// Writes it. Tensors are contiguous float32 or bfloat16, labels int64. Throws DataError where a value is not finite (bfloat16: or was
  /// too large to be), naming file, tensor and row.
  void write(const std::string& split, const std::string& what, const std::string& key, const NamedTensors& tensors) const;
  /// Name and digest of what was found or written.
  FeatureFile file(const std::string& split, const std::string& what, const std::string& key) const;

  /// Keeps rows of a file that is not whole yet, the first of which is row `begin`, in a file of their own. Throws as `write`.
  void save_rows(const std::string& split, const std::string& what, const std::string& key, std::int64_t begin,
                 const NamedTensors& rows) const;
  /// Copies saved rows into `tensors`, as far as they follow each other from row 0 on and are whole. Returns how many; 0 with `force`.
  std::int64_t restore_rows(const std::string& split, const std::string& what, const std::string& key, const NamedTensors& tensors) const;
  /// Removes saved rows, and what processes that were killed left of this file.
  void forget_rows(const std::string& split, const std::string& what, const std::string& key) const;

  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path path(const std::string& split, const std::string& what, const std::string& key) const;
  std::optional<SafetensorsFile> open_whole(const std::filesystem::path& file, const std::string& key) const;

  std::filesystem::path folder_;
  bool force_;
};

/// Accuracies per split of what needs no search: each backbone by itself, and late fusion of them all.
struct Baselines {
  std::map<std::string, std::map<std::string, double>> unimodal;  ///< modality -> split -> accuracy
  std::map<std::string, double> sum_logits;                       ///< split -> accuracy of argmax of the sum of logits
  std::map<std::string, double> sum_log_softmax;                  ///< the same for log-probabilities
  nlohmann::json to_json() const;
};

/// Adds one split: logits[m] is [N, classes], or undefined for a modality without (late fusion is then left out), labels [N].
void add_baselines(Baselines& baselines, const std::string& split, const std::vector<std::string>& modalities,
                   const std::vector<at::Tensor>& logits, const at::Tensor& labels);

/// Everything in a features.json.
struct FeatureManifest {
  DatasetSpec spec;  ///< its digest is ignored: it comes of the content
  std::string dataset_digest;
  std::string source;  ///< the dataset.json, relative to the manifest's folder; empty: imported, retraining cannot read inputs
  TapType tap_type = TapType::f32;        ///< of every modality
  std::vector<std::vector<std::int64_t>> times;  ///< [m][tap]: T of the stored tokens, 0 without; empty: none at all
  /// Per modality: kind and digest, figures for people, and `file`, relative to the manifest's folder, for retraining.
  std::vector<nlohmann::json> backbones;
  Baselines baselines;
  std::map<std::string, std::pair<FeatureFile, std::vector<FeatureFile>>> files;  ///< split -> labels, modalities
};

/// Writes features.json into the folder. Returns its digest.
std::string write_feature_manifest(const std::filesystem::path& folder, const FeatureManifest& manifest);

}  // namespace fusion
