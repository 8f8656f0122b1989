#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "workers/data/dataset.h"
#include "workers/data/feature_writer.h"

namespace fusion {

struct ExtractOptions {
  std::map<std::string, std::filesystem::path> backbones;  ///< modality -> file; others: backbones/<modality>.safetensors beside the dataset
  std::filesystem::path out;  ///< folder of features.json; default: features/ beside the dataset
  std::int64_t batch = 250;
  TapType dtype = TapType::f32;  ///< of the stored taps
  int threads = 0;            ///< 0: one per core; the bytes do not depend on it
  bool force = false;         ///< make files again that are there
};

/// Told while an extraction runs, from one thread: which part, how many of its rows are done.
using ExtractObserver = std::function<void(const std::string& modality, const std::string& split, std::int64_t done, std::int64_t rows)>;

struct ExtractResult {
  FeatureManifest manifest;
  std::string digest;            ///< of features.json
  std::filesystem::path file;    ///< features.json
  int made = 0, reused = 0;      ///< feature files
};

/// Runs every modality's frozen backbone once over every split, in evaluation mode, and writes the pooled taps and the logits with a
/// manifest (docs/data.md). Files that the same backbone, dataset, split and taps made before are used again.
///
/// Backbones run on `threads` threads, one instance each; batches are cut the same whatever their number. Throws ConfigError,
/// ModelError or DataError: every missing backbone at once; taps or logits that are not finite; logits of another number of classes.
ExtractResult extract_features(const Dataset& dataset, const ExtractOptions& options, const ExtractObserver& observer = {});

}  // namespace fusion
