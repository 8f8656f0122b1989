#include "workers/train/batch_feed.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>

#include "base/bfloat16.h"
#include "model/dropout.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

// A tile stays in the second-level cache on a CPU; on a GPU few large copies are better.
constexpr std::int64_t kTileBytesCpu = 512 << 10;
constexpr std::int64_t kTileBytesDevice = 32 << 20;
constexpr std::int64_t kPrefetchAhead = 8;  // rows

std::int64_t columns_of(const std::vector<std::int64_t>& widths) {
  return std::accumulate(widths.begin(), widths.end(), std::int64_t{0});
}

}  // namespace

BatchFeed::BatchFeed(const FeatureSplit& split, const Architecture& architecture, const Options& options, c10::Device device)
    : split_(split), options_(options) {
  const at::NoGradGuard no_grad;
  options_.batch = std::min(options_.batch, options_.rows);
  std::int64_t row_bytes = 0;
  std::vector<std::int64_t> columns;
  for (const FusionStep& step : architecture.steps) {
    auto& sources = sources_.emplace_back();
    std::vector<std::int64_t> widths;
    for (std::size_t m = 0; m < step.taps.size(); ++m) {
      const at::Tensor& tap = split.taps[m][static_cast<std::size_t>(step.taps[m])];
      sources.push_back({static_cast<const std::byte*>(tap.data_ptr()), tap.size(1), tap.scalar_type() == at::kBFloat16});
      widths.push_back(tap.size(1));
    }
    columns.push_back(columns_of(widths));
    row_bytes += 4 * (columns.back() + (options_.dropout > 0 ? options_.width : 0));
  }
  const std::int64_t budget = device.is_cpu() ? kTileBytesCpu : kTileBytesDevice;
  const std::int64_t batches = std::clamp<std::int64_t>(budget / (row_bytes * options_.batch), 1, 1024);
  tile_rows_ = std::min(batches * options_.batch, (options_.rows + options_.batch - 1) / options_.batch * options_.batch);
  for (const std::int64_t width : columns) {
    tile_.host.joined.push_back(at::empty({tile_rows_, width}, at::kFloat));
    if (options_.dropout > 0) tile_.host.masks.push_back(at::empty({tile_rows_, options_.width}, at::kFloat));
  }
  tile_.host.labels = at::empty({tile_rows_}, at::kLong);
  tile_.host.rows = tile_rows_;
  tile_.device = tile_.host;
  for (at::Tensor& tensor : tile_.device.joined) tensor = tensor.to(device);
  for (at::Tensor& tensor : tile_.device.masks) tensor = tensor.to(device);
  tile_.device.labels = tile_.device.labels.to(device);
  for (std::int64_t begin = 0; begin < tile_rows_; begin += options_.batch) {
    slots_.push_back(cut(tile_.device, begin, options_.batch));
  }
}

Batch BatchFeed::cut(const Batch& tile, std::int64_t begin, std::int64_t rows) const {
  const at::NoGradGuard no_grad;
  Batch batch;
  for (const at::Tensor& tensor : tile.joined) batch.joined.push_back(tensor.narrow(0, begin, rows));
  for (const at::Tensor& tensor : tile.masks) batch.masks.push_back(tensor.narrow(0, begin, rows));
  batch.labels = tile.labels.narrow(0, begin, rows);
  batch.rows = rows;
  return batch;
}

void BatchFeed::begin_epoch(int epoch) {
  order_ = epoch_order(split_.rows, options_.shuffle, options_.order_seed, epoch);
  seen_before_ = epoch * options_.rows;
  begin_ = place_ = 0;
}

const Batch* BatchFeed::next() {
  if (place_ >= options_.rows) return nullptr;
  if (place_ == 0 || place_ == begin_ + tile_rows_) {
    begin_ = place_;
    fill_tile();
  }
  const std::int64_t within = place_ - begin_;
  const std::int64_t rows = std::min(options_.batch, options_.rows - place_);
  place_ += rows;
  if (rows == options_.batch) return &slots_[static_cast<std::size_t>(within / options_.batch)];
  last_ = cut(tile_.device, within, rows);
  return &last_;
}

float* BatchFeed::gather(const Source& source, std::uint32_t row, float* out) {
  const auto width = static_cast<std::size_t>(source.width);
  if (source.half) {
    widen_bfloat16(source.data + row * width * 2, width, out);
  } else {
    std::memcpy(out, source.data + row * width * 4, width * 4);
  }
  return out + width;
}

void BatchFeed::fill_tile() {
  const std::int64_t rows = std::min(tile_rows_, options_.rows - begin_);
  const std::uint32_t* const order = order_->data() + begin_;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    float* out = tile_.host.joined[i].data_ptr<float>();
    for (std::int64_t r = 0; r < rows; ++r) {
      for (const Source& source : sources_[i]) {
        if (r + kPrefetchAhead < rows) {
          __builtin_prefetch(source.data + order[r + kPrefetchAhead] * source.width * (source.half ? 2 : 4));
        }
        out = gather(source, order[r], out);
      }
    }
  }
  const std::int64_t* const labels = split_.labels.data_ptr<std::int64_t>();
  std::int64_t* const labels_out = tile_.host.labels.data_ptr<std::int64_t>();
  for (std::int64_t r = 0; r < rows; ++r) labels_out[r] = labels[order[r]];
  for (std::size_t i = 0; i < tile_.host.masks.size(); ++i) {
    fill_dropout_mask(tile_.host.masks[i].data_ptr<float>(), rows * options_.width, (seen_before_ + begin_) * options_.width,
                      options_.dropout, options_.seed, static_cast<std::uint32_t>(i));
  }
  if (tile_.device.labels.is_cpu()) return;
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < sources_.size(); ++i) tile_.device.joined[i].copy_(tile_.host.joined[i]);
  for (std::size_t i = 0; i < tile_.host.masks.size(); ++i) tile_.device.masks[i].copy_(tile_.host.masks[i]);
  tile_.device.labels.copy_(tile_.host.labels);
}

}  // namespace fusion
