#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "space/dataset_spec.h"

namespace fusion {

/// The stored features of one split, mapped from disk: read-only, shared by every process on the host. N rows in dataset order.
struct FeatureSplit {
  std::int64_t rows = 0;
  std::vector<std::vector<at::Tensor>> taps;  ///< [m][i]: [N, width of tap i of modality m], float32, on the CPU
  std::vector<at::Tensor> logits;             ///< [m]: [N, classes]; undefined where the modality has none
  at::Tensor labels;                          ///< [N], int64, in [0, classes)
};

/// A feature manifest and the files it names (docs/data.md), checked wholly when opened: manifest digest, sizes, SHA-256 of every
/// file, shapes against the taps, finite values, labels in range. Never write into the tensors. Thread-safe after construction.
class FeatureSet {
 public:
  /// `manifest` is a features.json, or a dataset.json beside whose features/ folder it lies. A non-empty `expected_digest` that
  /// is not the manifest's is an error. Throws DataError with a sentence naming the file and what is wrong.
  /// Verified files are remembered by (path, size, mtime, inode) within the process, so opening again is quick.
  static std::shared_ptr<const FeatureSet> open(const std::filesystem::path& manifest,
                                                const std::string& expected_digest = "");

  const DatasetSpec& spec() const { return spec_; }
  /// "train", "dev" or "test". Throws DataError if there is none.
  const FeatureSplit& split(const std::string& name) const;
  bool has(const std::string& name) const { return splits_.contains(name); }

 private:
  DatasetSpec spec_;
  std::map<std::string, FeatureSplit> splits_;
};

}  // namespace fusion
