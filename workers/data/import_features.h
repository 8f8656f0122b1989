#pragma once

#include <filesystem>

#include "workers/data/feature_writer.h"

namespace fusion {

struct ImportResult {
  FeatureManifest manifest;
  std::string digest;          ///< of features.json
  std::filesystem::path file;  ///< features.json
};

/// Makes a features.json of features that somebody else computed, as an import specification says (docs/data.md): per modality, tap and
/// split a `.npy` file or a tensor of a `.safetensors` file, and labels. No backbone is needed.
///
/// Arrays are [N, width], [N] or [N, channels, ...]; what stands behind the channels is averaged. Every numeric type is read and becomes
/// float32. Paths are relative to the specification. Throws ConfigError or DataError with every problem at once: files missing or
/// damaged, rows that differ, widths that differ between splits, values that are not finite, labels out of range.
ImportResult import_features(const std::filesystem::path& specification, const std::filesystem::path& out,
                             TapType type = TapType::f32);

}  // namespace fusion
