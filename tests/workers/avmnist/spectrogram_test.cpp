#include "workers/avmnist/spectrogram.h"

#include <gmock/gmock.h>

#include <cmath>
#include <complex>

#include "base/error.h"
#include "base/tensor_files.h"
#include "tests/workers/avmnist/sources.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;

std::vector<double> sound_of(std::size_t samples, std::uint64_t seed) {
  const std::vector<float> sound = testing::some_sound(samples, seed);
  return {sound.begin(), sound.end()};
}

std::array<std::uint8_t, kSpectrogramCells> picture_of(const std::vector<double>& samples) {
  const std::array<std::int64_t, 1> lengths{static_cast<std::int64_t>(samples.size())};
  std::array<std::uint8_t, kSpectrogramCells> pixels;
  Spectrograms(lengths, 8000).picture(samples, pixels);
  return pixels;
}

TEST(SegmentsTest, AreWhatTheDoubleLoopFinds) {
  const auto searched = [](int samples) {
    for (int i = (samples + 111) / 112 - 1;; ++i) {
      for (int j = 0; j < i; ++j) {
        if (113 * i - 112 * j > samples && samples >= 112 * i - 111 * j) return Segments{i, j};
      }
    }
  };
  for (int samples = 112; samples <= 24'976; ++samples) {
    const Segments found = segments_of(samples);
    ASSERT_EQ(found, searched(samples)) << samples;
    ASSERT_EQ((samples - found.overlap) / found.hop(), 112) << samples;
    ASSERT_LE(found.length, kDftPoints) << samples;
    ASSERT_LE(111 * found.hop() + found.length, samples) << samples;
  }
}

TEST(SegmentsTest, HaveTheKnownRangeOverTheClipsOfFsdd) {
  EXPECT_EQ(segments_of(18'262).length, 163);
  EXPECT_THAT(message_of<DataError>([] { segments_of(111); }), HasSubstr("111 samples"));
  EXPECT_THAT(message_of<DataError>([] { segments_of(24'977); }), HasSubstr("112 to 24976"));
}

/// The definition, written out.
double power_of(const std::vector<double>& x, int bin, int segment) {
  const Segments cut = segments_of(static_cast<std::int64_t>(x.size()));
  std::complex<double> sum = 0;
  double energy = 0;
  for (int n = 0; n < cut.length; ++n) {
    const double w = 0.5 - 0.5 * std::cos(2 * std::numbers::pi * n / (cut.length - 1));
    energy += w * w;
    sum += w * x[static_cast<std::size_t>(segment * cut.hop() + n)] * std::polar(1.0, -2 * std::numbers::pi * bin * n / 223);
  }
  const bool single = bin == 0 || (bin == 111 && cut.length % 2 == 0);
  return std::norm(sum) / (8000 * energy) * (single ? 1 : 2);
}

TEST(SpectrogramTest, IsThePowerOfTheDefinition) {
  for (const std::size_t samples : {1148u, 3358u, 3480u, 7000u}) {
    const std::vector<double> x = sound_of(samples, samples);
    const std::array<std::int64_t, 1> lengths{static_cast<std::int64_t>(samples)};
    std::array<double, kSpectrogramCells> power;
    Spectrograms(lengths, 8000).power(x, power);
    for (const int bin : {0, 1, 7, 56, 110, 111}) {
      for (const int segment : {0, 1, 63, 111}) {
        const double expected = power_of(x, bin, segment);
        EXPECT_NEAR(power[static_cast<std::size_t>(bin * 112 + segment)], expected, 1e-9 * expected + 1e-18)
            << samples << " " << bin << " " << segment;
      }
    }
  }
}

TEST(SpectrogramTest, GreysRunFromWhiteToBlack) {
  EXPECT_EQ(greys()[0], 255);
  EXPECT_EQ(greys()[255], 0);
  EXPECT_EQ(greys()[1], 254);   // 255 - 15 * 8 / 255, truncated
  EXPECT_EQ(greys()[32], 239);  // the second class is passed
  EXPECT_TRUE(std::is_sorted(greys().rbegin(), greys().rend()));
}

TEST(SpectrogramTest, EveryClipUsesTheWholeRange) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const auto pixels = picture_of(sound_of(2000 + 300 * seed, seed));
    EXPECT_EQ(*std::min_element(pixels.begin(), pixels.end()), 0) << seed;
    EXPECT_EQ(*std::max_element(pixels.begin(), pixels.end()), 255) << seed;
  }
}

TEST(SpectrogramTest, SilenceIsWhite) {
  EXPECT_THAT(picture_of(std::vector<double>(3000)), ::testing::Each(255));
  std::vector<double> half = sound_of(4000, 3);
  std::fill(half.begin() + 2000, half.end(), 0.0);
  const auto pixels = picture_of(half);
  for (std::size_t row = 0; row < 112; ++row) EXPECT_EQ(pixels[row * 112 + 111], 255);
  EXPECT_EQ(*std::min_element(pixels.begin(), pixels.end()), 0);
  std::array<double, kSpectrogramCells> equal;
  equal.fill(0.25);
  std::array<std::uint8_t, kSpectrogramCells> flat;
  grey_picture(equal, flat);
  EXPECT_THAT(flat, ::testing::Each(255));
}

TEST(SpectrogramTest, TheTopRowIsTheHighestFrequency) {
  std::vector<double> tone(5000);
  for (std::size_t i = 0; i < tone.size(); ++i) tone[i] = std::sin(2 * std::numbers::pi * 100 / 223 * static_cast<double>(i));
  const auto pixels = picture_of(tone);
  EXPECT_LT(pixels[11 * 112 + 50], 5);  // bin 100 stands in row 111 - 100
  EXPECT_GT(pixels[100 * 112 + 50], 100);
}

TEST(SpectrogramTest, RefusesLengthsWithoutTables) {
  const std::array<std::int64_t, 1> lengths{3000};
  const Spectrograms spectrograms(lengths, 8000);
  std::array<std::uint8_t, kSpectrogramCells> pixels;
  EXPECT_THAT(message_of<DataError>([&] { spectrograms.picture(std::vector<double>(9000), pixels); }), HasSubstr("9000 samples"));
}

TEST(SpectrogramTest, AgreesWithNumpy) {
  const TemporaryFolder folder;
  const std::string python = "/usr/bin/python3 ";
  if (std::system((python + "-c 'import numpy' 2>/dev/null").c_str()) != 0) GTEST_SKIP() << "Debian's python3-numpy is not installed.";
  const char* source = std::getenv("FUSION_SOURCE_DIR");
  const std::string script = std::string(source != nullptr ? source : ".") + "/tests/workers/avmnist/spectrogram_check.py";
  for (const std::int64_t samples : {1148, 3000, 3358, 6001, 18'262}) {
    const std::vector<double> x = sound_of(static_cast<std::size_t>(samples), static_cast<std::uint64_t>(samples));
    write_npy(folder / "x.npy", {DType::f64, {samples}, x.data()});
    ASSERT_EQ(std::system((python + script + " " + (folder / "x.npy").string() + " " + (folder / "y.npy").string()).c_str()), 0);
    const TensorView theirs = open_npy(folder / "y.npy");
    ASSERT_EQ(theirs.bytes, std::size_t{kSpectrogramCells});
    const auto ours = picture_of(x);
    int differing = 0, largest = 0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
      const int difference = std::abs(int{ours[i]} - static_cast<int>(theirs.data[i]));
      differing += difference != 0;
      largest = std::max(largest, difference);
    }
    EXPECT_LE(differing, 2) << samples;  // only where 256 t is an integer but for rounding
    EXPECT_LE(largest, 2) << samples;
  }
}

}  // namespace
}  // namespace fusion
