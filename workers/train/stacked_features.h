#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "workers/data/features.h"
#include "workers/train/feature_tile.h"
#include "workers/train/stacked_plan.h"

namespace fusion::stacked {

using UsedTaps = std::vector<std::vector<bool>>;

/// How much of the device's memory features may take. Shared by the splits of a pack.
struct FeatureBudget {
  std::int64_t bytes = 0;
  std::int64_t taken = 0;
};

/// A split on the device: labels, the sums of stored logits, and the taps that are used, as they are stored. Where these are too many
/// the split is streamed, tile by tile (StreamedTile). The split must outlive it.
template <typename T>
class DeviceSplit {
 public:
  DeviceSplit(Backend<T>& backend, const FeatureSplit& split, FeatureBudget& budget, bool with_logits);
  ~DeviceSplit();

  /// Puts the taps there that are not there yet. False, and from then on always, where they do not fit: then nothing is kept.
  bool hold(const UsedTaps& used);
  const TapSources& taps() const { return taps_; }
  const Labels& labels() const { return labels_; }
  const FeatureSplit& split() const { return split_; }

 private:
  bool place(std::size_t m, std::size_t i);
  void drop();

  Backend<T>& backend_;
  const FeatureSplit& split_;
  FeatureBudget& budget_;
  bool streamed_ = false;
  std::int64_t taken_ = 0;
  TapSources taps_;
  Labels labels_;
  std::vector<float> stored_;
  std::vector<DeviceMemory<T>> tap_memory_, other_memory_;
};

/// Some rows of a split, gathered by the host and sent to the device.
template <typename T>
class StreamedTile {
 public:
  StreamedTile(Backend<T>& backend, const FeatureSplit& split, const UsedTaps& used, std::int64_t rows);

  /// The rows order[0 .. n), or first .. first + n - 1.
  void fill(std::span<const std::uint32_t> order);
  void fill(std::int64_t first, std::int64_t rows);
  const TapSources& taps() const { return taps_; }

 private:
  void send(std::int64_t rows);

  Backend<T>& backend_;
  FeatureTile<float> host_;
  TapSources taps_;
  std::vector<DeviceMemory<T>> memory_;
};

}  // namespace fusion::stacked
