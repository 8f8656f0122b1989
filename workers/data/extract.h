#pragma once

#include <chrono>
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
  std::int64_t batch = 64;
  TapType dtype = TapType::f32;  ///< of the stored taps
  TapKeep keep = TapKeep::pooled;  ///< time: tokens over time beside the pooled taps, where a tap's map has a time axis (model/time_axis.h)
  int threads = 0;            ///< 0: one per core; the bytes do not depend on it
  bool force = false;         ///< make files again that are there
  /// How often rows of a file that is not whole yet are saved: about as much work is lost if the process is killed.
  std::chrono::milliseconds save_every{5000};
};

/// How far an extraction is, over all files that it has to make.
struct ExtractProgress {
  std::string modality, split;         ///< of the file at hand
  std::int64_t done = 0, rows = 0;     ///< rows, those of an earlier run included
  std::int64_t resumed = 0;            ///< rows of an earlier run that was killed
  double share = 0, resumed_share = 0; ///< of the work, in [0, 1]: a row counts as many times as it has numbers
};
/// Told some times a second, from the caller's thread; never if there is nothing to make.
using ExtractObserver = std::function<void(const ExtractProgress&)>;

struct ExtractResult {
  FeatureManifest manifest;
  std::string digest;            ///< of features.json
  std::filesystem::path file;    ///< features.json
  int made = 0, reused = 0;      ///< feature files
  std::int64_t resumed_rows = 0; ///< rows of the files made that an earlier run had left
};

/// Runs every modality's frozen backbone once over every split, in evaluation mode, and writes the pooled taps and the logits with a
/// manifest (docs/data.md). Files that the same backbone, dataset, split, taps and options made before are used again, and where a run
/// was killed in the middle of a file, its saved rows are; the bytes are those of a run that nobody disturbed.
///
/// Backbones run on `threads` threads, one instance each; batches are cut the same whatever their number. Throws ConfigError,
/// ModelError or DataError: every missing backbone at once; taps or logits that are not finite; logits of another number of classes; time to
/// be kept where no tap of any modality has it.
ExtractResult extract_features(const Dataset& dataset, const ExtractOptions& options, const ExtractObserver& observer = {});

}  // namespace fusion
