#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json_reader.h"
#include "base/tensor_files.h"

namespace fusion {

/// One modality of a dataset: where its rows lie and how they are made a network's input.
struct ModalityManifest {
  std::string name;
  std::vector<std::int64_t> shape;  ///< of one row, as the network sees it
  double mean = 0, std = 1;         ///< the network sees (x - mean) / std
  std::optional<std::int64_t> time_axis;  ///< of the taps' maps (model/time_axis.h); 0: none
  std::map<std::string, std::string> files;  ///< array name -> .npy, relative to the manifest
  std::int64_t row_count() const;            ///< numbers in one row
};

/// Rows [begin, end) of an array.
struct SplitRange {
  std::string of;
  std::int64_t begin = 0, end = 0;
  std::int64_t rows() const { return end - begin; }
};

/// A dataset.json (docs/data.md) as it stands, checked in itself.
struct DatasetManifest {
  std::string name;
  std::string digest;
  std::int64_t classes = 0;
  std::vector<std::string> class_names;
  std::vector<ModalityManifest> modalities;    ///< at least one
  std::map<std::string, std::string> labels;   ///< array name -> .npy
  std::map<std::string, SplitRange> splits;    ///< "train" and "dev" at least
  std::map<std::string, std::string> sha256;   ///< of every file that is named

  /// Problems go to the reader.
  static DatasetManifest read(JsonReader& reader);
  /// Throws ConfigError with every problem, or DataError if the file cannot be read. The digest must be that of the content.
  static DatasetManifest read_file(const std::filesystem::path& file);
};

/// Sets `digest` of a dataset.json or features.json from its content and writes it, atomically.
void write_manifest(const std::filesystem::path& file, nlohmann::json document);

/// The arrays of a dataset, mapped from disk and checked wholly when opened: SHA-256 of every file, element types, row shapes, equal
/// numbers of rows, finite values, labels in range, splits within the arrays. Thread-safe after construction.
class Dataset {
 public:
  /// Throws ConfigError or DataError with every problem at once, each naming its file.
  static Dataset open(const std::filesystem::path& manifest);

  const DatasetManifest& manifest() const { return manifest_; }
  const std::filesystem::path& file() const { return file_; }
  /// Index of a modality by name. Throws ConfigError listing those there are.
  std::size_t modality(const std::string& name) const;

  bool has(const std::string& split) const { return manifest_.splits.contains(split); }
  /// Throws ConfigError if there is no such split; so do the functions below.
  const SplitRange& split(const std::string& split) const;
  /// [rows], int64.
  at::Tensor labels(const std::string& split) const;
  /// Rows of a split (0-based within it) as the network sees them: [B, *shape], float32, normalised.
  at::Tensor batch(std::size_t modality, const std::string& split, std::span<const std::int64_t> rows) const;
  at::Tensor batch(std::size_t modality, const std::string& split, std::int64_t begin, std::int64_t end) const;

 private:
  friend class DatasetChecker;
  DatasetManifest manifest_;
  std::filesystem::path file_;
  std::vector<std::map<std::string, TensorView>> arrays_;  ///< [modality]: array name -> rows
  std::map<std::string, TensorView> labels_;
};

}  // namespace fusion
