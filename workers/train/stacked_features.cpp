#include "workers/train/stacked_features.h"

#include <utility>

namespace fusion::stacked {

template <typename T>
DeviceSplit<T>::DeviceSplit(Backend<T>& backend, const FeatureSplit& split, FeatureBudget& budget, bool with_logits)
    : backend_(backend), split_(split), budget_(budget) {
  for (const auto& of_modality : split.taps) taps_.emplace_back(of_modality.size());
  const auto put_other = [&](const void* host, std::int64_t bytes) -> const void* {
    if (backend.reads_host_memory()) return host;
    other_memory_.emplace_back(backend, bytes);
    backend.upload(other_memory_.back().data(), host, bytes);
    return other_memory_.back().data();
  };
  labels_.labels = static_cast<const std::int64_t*>(
      put_other(split.labels.data_ptr<std::int64_t>(), split.rows * static_cast<std::int64_t>(sizeof(std::int64_t))));
  if (!with_logits) return;
  for (const at::Tensor& logits : split.logits) {
    stored_.resize(static_cast<std::size_t>(logits.numel()));
    for (std::size_t i = 0; i < stored_.size(); ++i) stored_[i] += logits.data_ptr<float>()[i];
  }
  labels_.stored = static_cast<const float*>(put_other(stored_.data(), static_cast<std::int64_t>(stored_.size() * sizeof(float))));
}

template <typename T>
DeviceSplit<T>::~DeviceSplit() {
  budget_.taken -= taken_;
}

template <typename T>
bool DeviceSplit<T>::hold(const UsedTaps& used) {
  for (std::size_t m = 0; m < used.size() && !streamed_; ++m) {
    for (std::size_t i = 0; i < used[m].size() && !streamed_; ++i) {
      if (used[m][i] && !taps_[m][i].data && !place(m, i)) drop();
    }
  }
  return !streamed_;
}

template <typename T>
bool DeviceSplit<T>::place(std::size_t m, std::size_t i) {
  const at::Tensor& tap = split_.taps[m][i];
  const auto bytes = static_cast<std::int64_t>(tap.nbytes());
  if (budget_.taken + bytes > budget_.bytes) return false;
  TapSource& source = taps_[m][i];
  source.stride = tap.size(1);
  source.source = tap.scalar_type() == at::kBFloat16 ? Source::bfloat16 : Source::float32;
  if (backend_.reads_host_memory()) {
    source.data = tap.data_ptr();
  } else {
    try {
      tap_memory_.emplace_back(backend_, bytes);
    } catch (const OutOfMemory&) {
      return false;
    }
    backend_.upload(tap_memory_.back().data(), tap.data_ptr(), bytes);
    source.data = tap_memory_.back().data();
  }
  budget_.taken += bytes;
  taken_ += bytes;
  return true;
}

template <typename T>
void DeviceSplit<T>::drop() {
  streamed_ = true;
  budget_.taken -= std::exchange(taken_, 0);
  tap_memory_.clear();
  for (auto& of_modality : taps_) of_modality.assign(of_modality.size(), TapSource{});
}

template <typename T>
StreamedTile<T>::StreamedTile(Backend<T>& backend, const FeatureSplit& split, const UsedTaps& used, std::int64_t rows)
    : backend_(backend), host_(split, used, rows) {
  for (std::size_t m = 0; m < used.size(); ++m) {
    auto& of_modality = taps_.emplace_back(used[m].size());
    for (std::size_t i = 0; i < used[m].size(); ++i) {
      if (!used[m][i]) continue;
      of_modality[i].stride = host_.stride(m, i);
      memory_.emplace_back(backend, rows * of_modality[i].stride * static_cast<std::int64_t>(sizeof(float)));
      of_modality[i].data = memory_.back().data();
    }
  }
}

template <typename T>
void StreamedTile<T>::fill(std::span<const std::uint32_t> order) {
  host_.fill(order);
  send(static_cast<std::int64_t>(order.size()));
}

template <typename T>
void StreamedTile<T>::fill(std::int64_t first, std::int64_t rows) {
  host_.fill(first, rows);
  send(rows);
}

template <typename T>
void StreamedTile<T>::send(std::int64_t rows) {
  std::size_t next = 0;
  for (std::size_t m = 0; m < taps_.size(); ++m) {
    for (std::size_t i = 0; i < taps_[m].size(); ++i) {
      if (!taps_[m][i].data) continue;
      backend_.upload(memory_[next++].data(), host_.tap(m, i, 0),
                      rows * taps_[m][i].stride * static_cast<std::int64_t>(sizeof(float)));
    }
  }
}

template class DeviceSplit<float>;
template class DeviceSplit<double>;
template class StreamedTile<float>;
template class StreamedTile<double>;

}  // namespace fusion::stacked
