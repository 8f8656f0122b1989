#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/enum_names.h"
#include "space/dataset_spec.h"

namespace fusion {

/// How a modality's taps are stored. bf16 halves them: 8 significant bits, rounded to nearest even (docs/data.md says what that does to
/// scores). Logits are always f32.
enum class TapType : std::uint8_t { f32, bf16 };
template <>
struct EnumNames<TapType> {
  static constexpr std::array<std::pair<TapType, std::string_view>, 2> kTable{{{TapType::f32, "f32"}, {TapType::bf16, "bf16"}}};
};

/// What of a tap is stored. time: beside the pooled tap also its tokens over time, where it has any.
enum class TapKeep : std::uint8_t { pooled, time };
template <>
struct EnumNames<TapKeep> {
  static constexpr std::array<std::pair<TapKeep, std::string_view>, 2> kTable{{{TapKeep::pooled, "pooled"}, {TapKeep::time, "time"}}};
};

/// What a tap's tokens over time are called in a feature file: "conv2@time" beside "conv2".
std::string sequence_name(const std::string& tap);

/// The stored features of one split, mapped from disk: read-only, shared by every process on the host. N rows in dataset order.
struct FeatureSplit {
  std::int64_t rows = 0;
  /// [m][i]: [N, width of tap i of modality m], contiguous, on the CPU; float32 or bfloat16 as they are stored, one type a modality.
  std::vector<std::vector<at::Tensor>> taps;
  /// [m][i]: [N, T of the tap, width], the tokens over time whose mean is the tap, of its type; undefined where none are stored.
  std::vector<std::vector<at::Tensor>> sequences;
  std::vector<at::Tensor> logits;             ///< [m]: [N, classes], float32; undefined where the modality has none
  at::Tensor labels;                          ///< [N], int64, in [0, classes)
};

/// A feature manifest and the files it names (docs/data.md), checked wholly when opened: manifest digest, sizes, SHA-256 of every
/// file, types and shapes against the taps, finite values, labels in range. Never write into the tensors. Thread-safe after construction.
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
  /// Of modality m.
  TapType tap_type(std::size_t m) const { return tap_types_.at(m); }
  /// T of tap i of modality m; 0 if its tokens over time are not stored.
  std::int64_t time(std::size_t m, std::size_t i) const { return times_.at(m).at(i); }

 private:
  DatasetSpec spec_;
  std::vector<TapType> tap_types_;
  std::vector<std::vector<std::int64_t>> times_;
  std::map<std::string, FeatureSplit> splits_;
};

}  // namespace fusion
