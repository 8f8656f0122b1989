#pragma once

#include <gtest/gtest.h>
#include <sndfile.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numbers>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "tests/temporary_folder.h"

namespace fusion::testing {

/// The folder of raw data (mnist/, fsdd/, esc10/), if it is there: FUSION_DATA_DIR, else ../shared/data beside the sources.
inline std::optional<std::filesystem::path> real_data() {
  const char* given = std::getenv("FUSION_DATA_DIR");
  const char* source = std::getenv("FUSION_SOURCE_DIR");
  const std::filesystem::path folder =
      given != nullptr ? std::filesystem::path(given) : std::filesystem::path(source != nullptr ? source : ".") / "../shared/data";
  if (!std::filesystem::is_directory(folder / "mnist")) return std::nullopt;
  return folder;
}

#define REQUIRE_REAL_DATA(name)                                                                                     \
  const auto name = ::fusion::testing::real_data();                                                                 \
  if (!name) GTEST_SKIP() << "The raw data is not there; set FUSION_DATA_DIR to the folder of mnist, fsdd and esc10."

/// Runs `work` and returns the message of the E it throws.
template <typename E>
std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const E& error) {
    return error.what();
  }
  return "nothing was thrown";
}

inline void write_bytes(const std::filesystem::path& file, const std::string& bytes) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

inline std::string idx_bytes(const std::vector<std::uint32_t>& shape, const std::vector<std::uint8_t>& data) {
  std::string bytes{'\0', '\0', '\x08', static_cast<char>(shape.size())};
  for (const std::uint32_t size : shape) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>((size >> shift) & 255);
  }
  return bytes + std::string(data.begin(), data.end());
}

inline void write_sound(const std::filesystem::path& file, const std::vector<float>& samples, int rate, int channels = 1) {
  std::filesystem::create_directories(file.parent_path());
  SF_INFO info{};
  info.samplerate = rate;
  info.channels = channels;
  info.format = file.extension() == ".ogg" ? SF_FORMAT_OGG | SF_FORMAT_VORBIS : SF_FORMAT_WAV | SF_FORMAT_PCM_16;
  SNDFILE* stream = sf_open(file.c_str(), SFM_WRITE, &info);
  ASSERT_NE(stream, nullptr) << sf_strerror(nullptr);
  sf_writef_float(stream, samples.data(), static_cast<sf_count_t>(samples.size()) / channels);
  sf_close(stream);
}

/// Noise of that amplitude around a tone.
inline std::vector<float> some_sound(std::size_t samples, std::uint64_t seed, double amplitude = 0.3) {
  Rng rng(seed);
  const double frequency = rng.uniform(0.01, 0.2);
  std::vector<float> sound(samples);
  for (std::size_t i = 0; i < samples; ++i) {
    sound[i] = static_cast<float>(amplitude * (0.6 * std::sin(2 * std::numbers::pi * frequency * static_cast<double>(i)) +
                                               0.4 * rng.uniform(-1, 1)));
  }
  return sound;
}

/// Small raw data of our own, in the layouts of MNIST (plain IDX), FSDD and ESC-10: `rows` training and `rows` test images,
/// five speakers with indices 0, 6, 12 and 41, one noise clip per fold.
inline void make_sources(const std::filesystem::path& folder, std::uint32_t rows = 60) {
  Rng rng(1);
  for (const std::string half : {"train", "t10k"}) {
    std::vector<std::uint8_t> pixels(rows * 784), labels(rows);
    for (auto& pixel : pixels) pixel = static_cast<std::uint8_t>(rng.below(256));
    for (auto& label : labels) label = static_cast<std::uint8_t>(rng.below(10));
    write_bytes(folder / "mnist" / (half + "-images-idx3-ubyte"), idx_bytes({rows, 28, 28}, pixels));
    write_bytes(folder / "mnist" / (half + "-labels-idx1-ubyte"), idx_bytes({rows}, labels));
  }
  std::uint64_t seed = 100;
  for (int digit = 0; digit < 10; ++digit) {
    for (const std::string speaker : {"george", "jackson", "lucas", "theo", "yweweler"}) {
      for (const int index : {0, 6, 12, 41}) {
        const std::string name = std::to_string(digit) + "_" + speaker + "_" + std::to_string(index) + ".wav";
        write_sound(folder / "fsdd" / "recordings" / name, some_sound(1200 + 37 * (seed % 50), seed), 8000);
        ++seed;
      }
    }
  }
  for (int fold = 1; fold <= 5; ++fold) {
    write_sound(folder / "esc10" / "001-dog-bark" / (std::to_string(fold) + "-100-A.ogg"), some_sound(32000, seed++), 16000);
  }
}

}  // namespace fusion::testing
