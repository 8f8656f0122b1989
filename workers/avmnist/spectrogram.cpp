// This file is compiled with -O3 -ffp-contract=off: the kernel needs the vectoriser, and no fused multiply-add may change
// the bits between machines (CMakeLists.txt).
#include "workers/avmnist/spectrogram.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <string>

#include "base/error.h"
#include "base/vector_clones.h"

namespace fusion {

namespace {
constexpr std::int64_t kFewest = kSpectrogramSize, kMost = std::int64_t{kSpectrogramSize} * kDftPoints;
}

Segments segments_of(std::int64_t samples) {
  if (samples < kFewest || samples > kMost) {
    throw DataError("a clip of " + std::to_string(samples) + " samples cannot be cut into 112 segments; allowed are " +
                    std::to_string(kFewest) + " to " + std::to_string(kMost));
  }
  for (std::int64_t i = std::max<std::int64_t>(1, (samples + 111) / 112 - 1);; ++i) {
    const std::int64_t excess = 112 * i - samples;
    const std::int64_t j = excess > 0 ? (excess + 110) / 111 : 0;  // the least j with L >= 112 i - 111 j
    if (j < i && 113 * i - 112 * j > samples) return {static_cast<int>(i), static_cast<int>(j)};
  }
}

// ---------------------------------------------------------------------------------------------- transform

namespace {

constexpr int kColumns = 2 * kSpectrogramSize, kBlock = 8, kFrames = 4;
using Lanes = double __attribute__((vector_size(kBlock * sizeof(double))));
static_assert(kColumns % kBlock == 0 && kSpectrogramSize % kFrames == 0);

/// out[column][segment] = sum over n of samples[segment * hop + n] * table[n][column], n ascending.
FUSION_VECTOR_CLONES void transform(const double* samples, int length, int hop, const double* table, double* out) {
  for (int block = 0; block < kColumns / kBlock; ++block) {
    const double* columns = table + static_cast<std::ptrdiff_t>(block) * length * kBlock;
    for (int frame = 0; frame < kSpectrogramSize; frame += kFrames) {
      const double* x = samples + static_cast<std::ptrdiff_t>(frame) * hop;
      Lanes s0{}, s1{}, s2{}, s3{};
      for (int n = 0; n < length; ++n) {
        Lanes c;
        std::memcpy(&c, columns + static_cast<std::ptrdiff_t>(n) * kBlock, sizeof c);
        s0 += c * x[n];
        s1 += c * x[n + hop];
        s2 += c * x[n + 2 * hop];
        s3 += c * x[n + 3 * hop];
      }
      for (int lane = 0; lane < kBlock; ++lane) {
        double* row = out + (block * kBlock + lane) * kSpectrogramSize + frame;
        row[0] = s0[lane];
        row[1] = s1[lane];
        row[2] = s2[lane];
        row[3] = s3[lane];
      }
    }
  }
}

std::vector<double> hann(int length) {
  std::vector<double> window(static_cast<std::size_t>(length), 1.0);
  for (int n = 0; length > 1 && n < length; ++n) {
    window[static_cast<std::size_t>(n)] = 0.5 - 0.5 * std::cos(2 * std::numbers::pi * n / (length - 1));
  }
  return window;
}

std::vector<double> make_table(const std::vector<double>& window) {
  std::array<double, kDftPoints> cosine, sine;
  for (int m = 0; m < kDftPoints; ++m) {
    cosine[static_cast<std::size_t>(m)] = std::cos(2 * std::numbers::pi * m / kDftPoints);
    sine[static_cast<std::size_t>(m)] = std::sin(2 * std::numbers::pi * m / kDftPoints);
  }
  std::vector<double> table(window.size() * kColumns);
  for (std::size_t column = 0; column < kColumns; ++column) {
    const auto& wave = column < kSpectrogramSize ? cosine : sine;
    double* block = table.data() + column / kBlock * window.size() * kBlock + column % kBlock;
    for (std::size_t n = 0; n < window.size(); ++n) {
      block[n * kBlock] = window[n] * wave[n * (column % kSpectrogramSize) % kDftPoints];
    }
  }
  return table;
}

}  // namespace

Spectrograms::Spectrograms(std::span<const std::int64_t> clip_samples, int rate) {
  for (const std::int64_t samples : clip_samples) {
    const int length = segments_of(samples).length;
    if (tables_.contains(length)) continue;
    const std::vector<double> window = hann(length);
    double energy = 0;
    for (const double w : window) energy += w * w;
    tables_.emplace(length, make_table(window));
    scales_.emplace(length, energy > 0 ? 1 / (rate * energy) : 0);
  }
}

void Spectrograms::power(std::span<const double> samples, std::span<double, kSpectrogramCells> power) const {
  const Segments segments = segments_of(static_cast<std::int64_t>(samples.size()));
  const auto table = tables_.find(segments.length);
  if (table == tables_.end()) {
    throw DataError("no tables were made for a clip of " + std::to_string(samples.size()) + " samples");
  }
  std::array<double, std::size_t{2} * kSpectrogramCells> parts;
  transform(samples.data(), segments.length, segments.hop(), table->second.data(), parts.data());
  const double scale = scales_.at(segments.length);
  for (int bin = 0; bin < kSpectrogramSize; ++bin) {
    const bool single = bin == 0 || (bin == kSpectrogramSize - 1 && segments.length % 2 == 0);
    const double factor = single ? scale : 2 * scale;
    for (int s = 0; s < kSpectrogramSize; ++s) {
      const auto cell = static_cast<std::size_t>(bin * kSpectrogramSize + s);
      const double re = parts[cell], im = parts[cell + kSpectrogramCells];
      power[cell] = (re * re + im * im) * factor;
    }
  }
}

void Spectrograms::picture(std::span<const double> samples, std::span<std::uint8_t, kSpectrogramCells> pixels) const {
  std::array<double, kSpectrogramCells> cells;
  power(samples, cells);
  grey_picture(cells, pixels);
}

// ---------------------------------------------------------------------------------------------- picture

const std::array<std::uint8_t, 256>& greys() {
  // ColorBrewer's nine greys, linear in between, truncated: in integers, so that no rounding can differ.
  static constexpr std::array<std::uint8_t, 256> kTable = [] {
    constexpr std::array<int, 9> kRamp{255, 240, 217, 189, 150, 115, 82, 37, 0};
    std::array<std::uint8_t, 256> table{};
    for (int q = 0; q < 256; ++q) {
      const int k = std::min(8 * q / 255, 7);
      const auto at = static_cast<std::size_t>(k);
      table[static_cast<std::size_t>(q)] =
          static_cast<std::uint8_t>((255 * kRamp[at] + (kRamp[at + 1] - kRamp[at]) * (8 * q - 255 * k)) / 255);
    }
    return table;
  }();
  return kTable;
}

void grey_picture(std::span<const double, kSpectrogramCells> power, std::span<std::uint8_t, kSpectrogramCells> pixels) {
  // t does not depend on the base of the logarithm; the natural one is the quickest.
  std::array<double, kSpectrogramCells> level;
  double low = INFINITY, high = -INFINITY;
  for (std::size_t cell = 0; cell < level.size(); ++cell) {
    if (power[cell] <= 0) continue;
    level[cell] = std::log(power[cell]);
    low = std::min(low, level[cell]);
    high = std::max(high, level[cell]);
  }
  const double range = high - low;  // -inf for a silent clip
  for (int bin = 0; bin < kSpectrogramSize; ++bin) {
    for (int s = 0; s < kSpectrogramSize; ++s) {
      const auto cell = static_cast<std::size_t>(bin * kSpectrogramSize + s);
      int q = 0;
      if (range > 0 && power[cell] > 0) q = std::min(static_cast<int>(256 * ((level[cell] - low) / range)), 255);
      pixels[static_cast<std::size_t>((kSpectrogramSize - 1 - bin) * kSpectrogramSize + s)] =
          greys()[static_cast<std::size_t>(q)];
    }
  }
}

}  // namespace fusion
