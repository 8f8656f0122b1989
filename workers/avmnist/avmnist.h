#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/enum_names.h"
#include "workers/avmnist/mixture.h"

namespace fusion {

enum class AvmnistPreset : std::uint8_t { careful, reference };
template <>
struct EnumNames<AvmnistPreset> {
  static constexpr std::array<std::pair<AvmnistPreset, std::string_view>, 2> kTable{
      {{AvmnistPreset::careful, "careful"}, {AvmnistPreset::reference, "reference"}}};
  static constexpr std::string_view kWhat = "preset";
};

/// What to build, and from what. Everything but paths, threads and quiet changes the bytes, and is recorded.
struct AvmnistOptions {
  std::filesystem::path mnist;  ///< folder of the four IDX files, plain or .gz
  std::filesystem::path fsdd;   ///< folder of the Free Spoken Digit Dataset, or its recordings/
  std::filesystem::path noise;  ///< folder of ESC-10 or ESC-50; `reference` does not read it
  std::filesystem::path out;
  std::uint64_t seed = 0;
  AvmnistPreset preset = AvmnistPreset::careful;
  /// Components an image keeps. Careful: 5 (like the set of CentralNet and MFAS; 4 is like MultiBench's). Reference: the count
  /// rule of its code, each half for itself, unless set.
  std::optional<std::int64_t> components;
  std::optional<double> snr_db;      ///< Careful: -9, in [-60, 60]; infinity: no noise. Reference: not allowed.
  std::optional<SpeechSplit> split;  ///< Careful: recording. Reference: not allowed.
  int threads = 0;                   ///< 0: one per core
  std::optional<std::int64_t> limit;  ///< Keep the first rows of each half only, for quick trials: at least 24.
  bool quiet = false;                 ///< no bars
};

struct AvmnistOutcome {
  bool up_to_date = false;  ///< The folder held this very dataset already; nothing was done.
  std::string digest;       ///< of dataset.json
  std::int64_t train = 0, dev = 0, test = 0;
};

/// Builds AV-MNIST: MNIST digits degraded by PCA, each with a 112 x 112 spectrogram of the same digit spoken (docs/avmnist.md).
///
/// Writes image/{train,test}_data.npy (N, 784), audio/{train,test}_data.npy uint8 (N, 112, 112), {train,test}_labels.npy uint8,
/// and dataset.json last (docs/data.md). Row i belongs to label i, in the order of MNIST. The last twelfth of the training file
/// is the dev split: 5,000 of 60,000.
///
/// `careful`, the default: float32 images, PCA on the training rows only; speech and noise of train, dev and test disjoint, by
/// recording or speaker and by fold; a set SNR; every draw a hash of (seed, part, row, purpose).
///
/// `reference`, what the code of the published generator means to do, float64 images. Quirks kept: PCA of each half by itself;
/// the index of the first component that passes 25% used as a count (3, not 4); four speakers, train and dev sharing
/// clips; noise gain 0, so the noise is not even read. Fixed: clips are taken in turn in sorted order, not in the file system's;
/// rows are stored in the order of their labels, not of their completion; any failure stops the build; the picture is
/// computed, not drawn. Common to both, as published: the mean is not added back, the segment length follows the clip's.
///
/// The same bytes for every number of threads. Files appear in `out` complete and dataset.json last; a failure leaves
/// nothing behind. An `out` that holds this dataset, checksums verified, is left alone; one that holds a dataset of other
/// parameters is a ConfigError. Throws ConfigError or DataError. Peak memory about 1 GB for all 70,000 rows.
AvmnistOutcome build_avmnist(const AvmnistOptions& options);

}  // namespace fusion
