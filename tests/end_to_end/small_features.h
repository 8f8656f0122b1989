#pragma once

#include <cstdint>
#include <filesystem>

namespace fusion::testing {

struct SmallFeatures {
  std::int64_t train = 600, dev = 200, test = 200;
  std::uint64_t seed = 1;
  bool logits = true;
};

/// Writes `folder/features.json` and its files: two modalities ("audio" of 3 taps, "image" of 2), 4 classes, Gaussian taps of
/// which some carry the label. Real files in the real format, made in a moment. Returns the manifest.
std::filesystem::path write_small_features(const std::filesystem::path& folder, const SmallFeatures& options = {});

}  // namespace fusion::testing
