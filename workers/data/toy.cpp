#include "workers/data/toy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/error.h"
#include "base/random.h"
#include "base/tensor_files.h"
#include "workers/data/dataset.h"

// Every row is drawn from its own random streams, so rows do not depend on how many there are. The constants were chosen by
// experiment, docs/toy.md has the figures: change one and those figures are void.

namespace fusion {

namespace {

constexpr std::int64_t kSymbols = 3;  // classes are 2 kSymbols
constexpr double kRoughShare = 0.25, kHissShare = 0.35;  // of the rows; unequal, or late fusion has ties to win by luck
constexpr int kImageSide = 28, kSoundSide = 32;

/// What one row is about.
struct ToyRow {
  std::int64_t symbol;
  bool rough_frame, hiss;
  std::uint8_t label() const { return static_cast<std::uint8_t>(2 * symbol + (rough_frame != hiss ? 1 : 0)); }
};

enum class Stream : std::uint64_t { row = 1, image = 2, sound = 3 };

Rng rng_of(std::uint64_t seed, std::string_view split, std::int64_t row, Stream stream) {
  return Rng(mix(mix_text(seed, split), static_cast<std::uint64_t>(row)), static_cast<std::uint64_t>(stream));
}

ToyRow draw_row(Rng rng) {
  ToyRow row;
  row.symbol = static_cast<std::int64_t>(rng.below(kSymbols));
  row.rough_frame = rng.uniform() < kRoughShare;
  row.hiss = rng.uniform() < kHissShare;
  return row;
}

std::uint8_t to_byte(double value) { return static_cast<std::uint8_t>(std::clamp(value, 0.0, 255.0)); }

struct Point {
  double x, y;
};

double distance_to_stroke(double x, double y, Point a, Point b) {
  const double dx = b.x - a.x, dy = b.y - a.y;
  const double along = std::clamp(((x - a.x) * dx + (y - a.y) * dy) / (dx * dx + dy * dy + 1e-6), 0.0, 1.0);
  return std::hypot(x - a.x - along * dx, y - a.y - along * dy);
}

/// The strokes of a seven-segment digit, in the square from (-0.5, -1) to (0.5, 1).
std::vector<std::pair<Point, Point>> strokes_of(std::int64_t symbol) {
  constexpr std::array<std::string_view, kSymbols> kSegments{"abcdef", "abged", "bcfg"};  // 0, 2, 4
  constexpr std::array<std::pair<Point, Point>, 7> kStrokes{{{{-.5, -1}, {.5, -1}},
                                                             {{.5, -1}, {.5, 0}},
                                                             {{.5, 0}, {.5, 1}},
                                                             {{-.5, 1}, {.5, 1}},
                                                             {{-.5, 0}, {-.5, 1}},
                                                             {{-.5, -1}, {-.5, 0}},
                                                             {{-.5, 0}, {.5, 0}}}};
  std::vector<std::pair<Point, Point>> strokes;
  for (const char segment : kSegments[static_cast<std::size_t>(symbol)]) {
    strokes.push_back(kStrokes[static_cast<std::size_t>(segment - 'a')]);
  }
  return strokes;
}

/// A digit in shaky strokes, moved, slanted, half of the time under a blot, in a frame of smooth or rough grain.
void draw_image(const ToyRow& row, Rng rng, std::uint8_t* out) {
  constexpr double kCentre = 13.5, kHalfOpening = 9;
  const double size = rng.uniform(0.8, 1.15), width = 7 * size * rng.uniform(0.85, 1.15), height = 6 * size;
  const double slant = rng.uniform(-0.25, 0.25), thickness = rng.uniform(1.0, 1.6), ink = rng.uniform(0.7, 1.0);
  const Point centre{kCentre + rng.uniform(-3, 3), kCentre + rng.uniform(-2, 2)};
  auto strokes = strokes_of(row.symbol);
  const auto place = [&](Point p) {
    const double y = p.y * height;
    return Point{centre.x + p.x * width - slant * y + 0.4 * rng.normal(), centre.y + y + 0.4 * rng.normal()};
  };
  for (auto& [a, b] : strokes) {
    a = place(a);
    b = place(b);
  }
  const bool blot = rng.uniform() < 0.5;
  const Point blot_at{rng.uniform(7, 20), rng.uniform(7, 20)};
  const double blot_radius = rng.uniform(3.5, 6);
  const double frame_grain = (row.rough_frame ? 1.0 : 0.15) * std::exp(0.1 * rng.normal());
  for (int y = 0; y < kImageSide; ++y) {
    for (int x = 0; x < kImageSide; ++x) {
      double mark = 0;
      for (const auto& [a, b] : strokes) mark = std::max(mark, thickness - distance_to_stroke(x, y, a, b) + 0.5);
      mark = ink * std::min(mark, 1.0);
      if (blot && std::hypot(x - blot_at.x, y - blot_at.y) < blot_radius) mark = 0;
      const bool frame = std::max(std::abs(x - kCentre), std::abs(y - kCentre)) > kHalfOpening;
      *out++ = to_byte(80 * (mark + (frame ? frame_grain : 0.25) * rng.normal()) + 90);
    }
  }
}

/// A chord of two tones as a spectrogram, time to the right, high tones on top; with or without hiss above the tones.
void draw_sound(const ToyRow& row, Rng rng, std::uint8_t* out) {
  constexpr std::array<std::array<double, 2>, kSymbols> kTones{{{17, 24}, {17, 29}, {21, 27}}};
  const double detune = 0.7 * rng.normal(), begin = rng.uniform(0, 8), end = rng.uniform(24, 32);
  std::array<double, 2> at{}, strength{};
  for (std::size_t t = 0; t < 2; ++t) {
    at[t] = kTones[static_cast<std::size_t>(row.symbol)][t] + detune + 0.5 * rng.normal();
    strength[t] = 0.5 * rng.uniform(0.3, 1.2);
  }
  const double hiss = (row.hiss ? 1.4 : 0.2) * std::exp(0.1 * rng.normal());
  for (int y = 0; y < kSoundSide; ++y) {
    double tone = 0;
    for (std::size_t t = 0; t < 2; ++t) tone += strength[t] * std::exp(-(y - at[t]) * (y - at[t]) / (2 * 0.9 * 0.9));
    for (int x = 0; x < kSoundSide; ++x) {
      const double noise = (y < 15 ? hiss : 0.35) * std::hypot(rng.normal(), rng.normal());
      *out++ = to_byte(60 * ((x >= begin && x < end ? tone : 0.0) + noise));
    }
  }
}

/// Draws one split and writes its three files.
void make_split(const std::filesystem::path& out, const std::string& split, std::int64_t rows, std::uint64_t seed,
                const std::function<void()>& row_done) {
  std::vector<std::uint8_t> images(static_cast<std::size_t>(rows) * kImageSide * kImageSide);
  std::vector<std::uint8_t> sounds(static_cast<std::size_t>(rows) * kSoundSide * kSoundSide);
  std::vector<std::uint8_t> labels(static_cast<std::size_t>(rows));
  for (std::int64_t i = 0; i < rows; ++i) {
    const ToyRow row = draw_row(rng_of(seed, split, i, Stream::row));
    const auto at = static_cast<std::size_t>(i);
    draw_image(row, rng_of(seed, split, i, Stream::image), images.data() + at * kImageSide * kImageSide);
    draw_sound(row, rng_of(seed, split, i, Stream::sound), sounds.data() + at * kSoundSide * kSoundSide);
    labels[at] = row.label();
    row_done();
  }
  write_npy(out / "image" / (split + ".npy"), {DType::u8, {rows, kImageSide, kImageSide}, images.data()});
  write_npy(out / "audio" / (split + ".npy"), {DType::u8, {rows, kSoundSide, kSoundSide}, sounds.data()});
  write_npy(out / (split + "-labels.npy"), {DType::u8, {rows}, labels.data()});
}

}  // namespace

std::string make_toy(const std::filesystem::path& out, const ToyOptions& options,
                     const std::function<void(std::int64_t done)>& observer) {
  const std::vector<std::pair<std::string, std::int64_t>> splits{{"train", options.train}, {"dev", options.dev}, {"test", options.test}};
  nlohmann::json document = {
      {"format", "fusiond-dataset-1"},
      {"name", "toy"},
      {"classes", 2 * kSymbols},
      {"class_names", {"0 same", "0 other", "2 same", "2 other", "4 same", "4 other"}},
      {"parameters", {{"seed", options.seed}, {"rows", {options.train, options.dev, options.test}}}},
      {"modalities",
       {{{"name", "audio"}, {"shape", {1, kSoundSide, kSoundSide}}, {"mean", 127.5}, {"std", 127.5}, {"time_axis", -1}, {"files", nlohmann::json::object()}},
        {{"name", "image"}, {"shape", {1, kImageSide, kImageSide}}, {"mean", 127.5}, {"std", 127.5}, {"files", nlohmann::json::object()}}}}};
  std::int64_t done = 0;
  const auto row_done = [&] {
    if (observer) observer(done + 1);
    ++done;
  };
  for (const auto& [split, rows] : splits) {
    if (rows < 1) throw ConfigError("toy: " + split + " rows: expected at least 1, got " + std::to_string(rows));
  }
  for (const auto& [split, rows] : splits) {
    make_split(out, split, rows, options.seed, row_done);
    document["modalities"][0]["files"][split] = "audio/" + split + ".npy";
    document["modalities"][1]["files"][split] = "image/" + split + ".npy";
    document["labels"][split] = split + "-labels.npy";
    document["splits"][split] = {{"of", split}, {"begin", 0}, {"end", rows}};
    for (const std::string& file : {"audio/" + split + ".npy", "image/" + split + ".npy", split + "-labels.npy"}) {
      document["sha256"][file] = sha256_of_file(out / file);
    }
  }
  write_manifest(out / "dataset.json", document);
  return DatasetManifest::read_file(out / "dataset.json").digest;
}

}  // namespace fusion
