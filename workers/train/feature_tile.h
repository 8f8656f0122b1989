#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "space/architecture.h"
#include "workers/data/features.h"

namespace fusion {

/// Some rows of a split, gathered: for every tap that is used a matrix [rows, width] of T, their labels, and the sums of the backbones'
/// stored logits. A tile is filled once and read by every trial of a pack, so it should fit the cache.
///
/// Gathering is prefetched: a row costs about what reading it in order would (bf16 rows are widened on the way). Not thread-safe; the
/// split must outlive it.
template <typename T>
class FeatureTile {
 public:
  /// used[m][i]: whether tap i of modality m is wanted. Room for at most `rows` rows.
  FeatureTile(const FeatureSplit& split, const std::vector<std::vector<bool>>& used, std::int64_t rows, bool with_logits = false);

  /// The rows order[0 .. rows), or without an order the rows first, first + 1, ... `rows` of them, at most the room.
  void fill(std::span<const std::uint32_t> order);
  void fill(std::int64_t first, std::int64_t rows);

  std::int64_t room() const { return room_; }
  const T* tap(std::size_t modality, std::size_t tap, std::int64_t row) const {
    const Tap& of_tap = taps_[modality][tap];
    return of_tap.values.get() + row * of_tap.stride;
  }
  std::ptrdiff_t stride(std::size_t modality, std::size_t tap) const { return taps_[modality][tap].stride; }
  const std::int64_t* labels(std::int64_t row) const { return labels_.data() + row; }
  /// [rows, classes], dense; nullptr without.
  const T* logits(std::int64_t row) const { return logits_.empty() ? nullptr : logits_.data() + row * classes_; }

  /// Bytes of one row of such a tile.
  static std::int64_t row_bytes(const FeatureSplit& split, const std::vector<std::vector<bool>>& used);

 private:
  struct Release {
    void operator()(T* values) const;
  };
  struct Tap {
    const at::Tensor* from = nullptr;  ///< null: not used
    std::int64_t width = 0;
    std::ptrdiff_t stride = 0;
    std::unique_ptr<T[], Release> values;
  };
  template <typename Row>
  void fill_rows(std::int64_t rows, Row row);

  const FeatureSplit& split_;
  std::int64_t room_;
  std::int64_t classes_ = 0;
  std::vector<std::vector<Tap>> taps_;
  std::vector<std::int64_t> labels_;
  std::vector<T> logits_;
};

/// The taps that an architecture reads, added to `used`.
void mark_taps(const Architecture& architecture, std::vector<std::vector<bool>>& used);
/// No tap at all, of a split's shape.
std::vector<std::vector<bool>> no_taps(const FeatureSplit& split);

}  // namespace fusion
