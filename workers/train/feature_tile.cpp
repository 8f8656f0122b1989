#include "workers/train/feature_tile.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/bfloat16.h"

namespace fusion {
namespace {

constexpr std::int64_t kAhead = 16;  // rows
constexpr std::align_val_t kAlignment{64};

/// Rows of a power of two of bytes apart would fall into the same few sets of a cache: an odd number of cache lines does not.
std::ptrdiff_t stride_of(std::int64_t width, std::size_t element) {
  const std::int64_t per_line = 64 / static_cast<std::int64_t>(element);
  if (width < 4 * per_line) return width;
  const std::int64_t lines = (width + per_line - 1) / per_line;
  return (lines | 1) * per_line;
}

template <typename From>
void copy_row(double* out, const From* in, std::int64_t width) {
  for (std::int64_t c = 0; c < width; ++c) out[c] = static_cast<double>(static_cast<float>(in[c]));
}

void copy_row(float* out, const c10::BFloat16* in, std::int64_t width) {
  widen_bfloat16(reinterpret_cast<const std::byte*>(in), static_cast<std::size_t>(width), out);
}

// Short rows of any length in a few moves that may overlap; a call of memcpy costs more than the row.
void copy_row(float* out, const float* in, std::int64_t width) {
  const auto move = [&](auto bytes, std::int64_t at) { std::memcpy(out + at, in + at, bytes); };
  constexpr std::integral_constant<std::size_t, 64> kLine;
  constexpr std::integral_constant<std::size_t, 32> kHalf;
  constexpr std::integral_constant<std::size_t, 16> kQuarter;
  if (width >= 16) {
    std::int64_t at = 0;
    for (; at + 16 <= width; at += 16) move(kLine, at);
    if (at < width) move(kLine, width - 16);
  } else if (width >= 8) {
    move(kHalf, 0);
    move(kHalf, width - 8);
  } else if (width >= 4) {
    move(kQuarter, 0);
    move(kQuarter, width - 4);
  } else {
    for (std::int64_t c = 0; c < width; ++c) out[c] = in[c];
  }
}

template <typename From, typename T, typename Row>
void gather(T* out, std::ptrdiff_t stride, const From* from, std::int64_t width, std::int64_t rows, Row row) {
  constexpr std::int64_t kLine = 64 / sizeof(From);
  for (std::int64_t r = 0; r < rows; ++r, out += stride) {
    if (r + kAhead < rows) {
      const From* const next = from + row(r + kAhead) * width;
      __builtin_prefetch(next);
      if (width > kLine / 2) __builtin_prefetch(next + std::min(width - 1, kLine));  // the hardware finds the rest
    }
    copy_row(out, from + row(r) * width, width);
  }
}

}  // namespace

template <typename T>
void FeatureTile<T>::Release::operator()(T* values) const {
  ::operator delete[](values, kAlignment);
}

template <typename T>
FeatureTile<T>::FeatureTile(const FeatureSplit& split, const std::vector<std::vector<bool>>& used, std::int64_t rows, bool with_logits)
    : split_(split), room_(rows), labels_(static_cast<std::size_t>(rows)) {
  for (std::size_t m = 0; m < split.taps.size(); ++m) {
    auto& of_modality = taps_.emplace_back(split.taps[m].size());
    for (std::size_t i = 0; i < of_modality.size(); ++i) {
      if (!used[m][i]) continue;
      Tap& tap = of_modality[i];
      tap.from = &split.taps[m][i];
      tap.width = tap.from->size(1);
      tap.stride = stride_of(tap.width, sizeof(T));
      const auto count = static_cast<std::size_t>(rows * tap.stride);
      tap.values.reset(static_cast<T*>(::operator new[](count * sizeof(T), kAlignment)));
    }
  }
  if (!with_logits) return;
  classes_ = split.logits.front().size(1);
  logits_.resize(static_cast<std::size_t>(rows * classes_));
}

template <typename T>
template <typename Row>
void FeatureTile<T>::fill_rows(std::int64_t rows, Row row) {
  for (auto& of_modality : taps_) {
    for (Tap& tap : of_modality) {
      if (!tap.from) continue;
      if (tap.from->scalar_type() == at::kBFloat16) {
        gather(tap.values.get(), tap.stride, tap.from->template data_ptr<c10::BFloat16>(), tap.width, rows, row);
      } else {
        gather(tap.values.get(), tap.stride, tap.from->template data_ptr<float>(), tap.width, rows, row);
      }
    }
  }
  const std::int64_t* const labels = split_.labels.data_ptr<std::int64_t>();
  for (std::int64_t r = 0; r < rows; ++r) labels_[static_cast<std::size_t>(r)] = labels[row(r)];
  if (logits_.empty()) return;
  std::fill(logits_.begin(), logits_.end(), T{0});
  for (const at::Tensor& stored : split_.logits) {
    const float* const from = stored.data_ptr<float>();
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < classes_; ++c) logits_[static_cast<std::size_t>(r * classes_ + c)] += from[row(r) * classes_ + c];
    }
  }
}

template <typename T>
void FeatureTile<T>::fill(std::span<const std::uint32_t> order) {
  fill_rows(static_cast<std::int64_t>(order.size()), [order](std::int64_t r) -> std::int64_t { return order[static_cast<std::size_t>(r)]; });
}

template <typename T>
void FeatureTile<T>::fill(std::int64_t first, std::int64_t rows) {
  fill_rows(rows, [first](std::int64_t r) { return first + r; });
}

template <typename T>
std::int64_t FeatureTile<T>::row_bytes(const FeatureSplit& split, const std::vector<std::vector<bool>>& used) {
  std::int64_t bytes = sizeof(std::int64_t);
  for (std::size_t m = 0; m < used.size(); ++m) {
    for (std::size_t i = 0; i < used[m].size(); ++i) {
      if (used[m][i]) bytes += stride_of(split.taps[m][i].size(1), sizeof(T)) * static_cast<std::int64_t>(sizeof(T));
    }
  }
  return bytes;
}

void mark_taps(const Architecture& architecture, std::vector<std::vector<bool>>& used) {
  for (const FusionStep& step : architecture.steps) {
    for (std::size_t m = 0; m < step.taps.size(); ++m) used[m][static_cast<std::size_t>(step.taps[m])] = true;
  }
}

std::vector<std::vector<bool>> no_taps(const FeatureSplit& split) {
  std::vector<std::vector<bool>> used;
  for (const auto& of_modality : split.taps) used.emplace_back(of_modality.size(), false);
  return used;
}

template class FeatureTile<float>;
template class FeatureTile<double>;

}  // namespace fusion
