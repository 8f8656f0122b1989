#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace fusion {

/// Frequencies (rows) and segments (columns) of an AV-MNIST spectrogram.
inline constexpr int kSpectrogramSize = 112;
inline constexpr int kDftPoints = 223;
inline constexpr int kSpectrogramCells = kSpectrogramSize * kSpectrogramSize;

/// How a clip is cut into 112 segments: segment s is samples [s (length - overlap), s (length - overlap) + length).
struct Segments {
  int length = 0;   ///< i
  int overlap = 0;  ///< j < i
  int hop() const { return length - overlap; }
  bool operator==(const Segments&) const = default;
};

/// The reference's rule: the first pair, i rising from ceil(L / 112) - 1, then j rising from 0, with
/// 113 i - 112 j > L >= 112 i - 111 j, which makes floor((L - j) / (i - j)) = 112. Resolution in time and frequency so differs
/// from clip to clip (a published quirk, kept). Throws DataError unless L is in [112, 24976]: shorter clips have no such pair,
/// longer ones can have segments of more than 223 samples, which the DFT would cut.
Segments segments_of(std::int64_t samples);

/// The reference spectrogram of AV-MNIST (matplotlib's specgram, colour map Greys), without the drawing.
///
/// Power: each segment times the symmetric Hann window w, no detrending, DFT zero-padded to 223 points, bins 0 to 111,
/// |X|^2 / (rate * sum w^2), doubled except in bin 0 and, a quirk of matplotlib, except in bin 111 when i is even.
/// Pixels: S = 10 log10 power, t = (S - min) / (max - min) over the finite cells of this one clip, loud is dark (0) and quiet is
/// light (255), row 0 is the highest frequency. Cells of no power, and clips whose cells are all equal, are 255.
///
/// Differs from the reference, which draws a figure of 1.12 in at 100 dpi and reads it back: by rounding matplotlib resamples
/// that to 113 pixels and crops; drawn at exactly 112 it agrees with this but for 0.05% of the pixels and at most 2 levels.
///
/// The DFT is a product with tables of w cos and w sin. Each cell is summed in the order of the samples without fused
/// multiply-add, whatever the vector width of the CPU: the same bits everywhere. Tables of the lengths named are made by the
/// constructor; thread-safe after it.
class Spectrograms {
 public:
  /// Makes the tables for clips of these numbers of samples.
  Spectrograms(std::span<const std::int64_t> clip_samples, int rate);

  /// power[bin * 112 + segment]. The number of samples must be among the constructor's, else DataError.
  void power(std::span<const double> samples, std::span<double, kSpectrogramCells> power) const;
  /// The 112 x 112 picture, row-major.
  void picture(std::span<const double> samples, std::span<std::uint8_t, kSpectrogramCells> pixels) const;

 private:
  std::map<int, std::vector<double>> tables_;  // by i; [block of 8 columns][sample][8]; columns: 112 cosines, 112 sines
  std::map<int, double> scales_;               // 1 / (rate * sum w^2)
};

/// Power, laid out as above, to pixels.
void grey_picture(std::span<const double, kSpectrogramCells> power, std::span<std::uint8_t, kSpectrogramCells> pixels);

/// Matplotlib's Greys as read back by the reference: 255 for 0 to 0 for 255.
const std::array<std::uint8_t, 256>& greys();

}  // namespace fusion
