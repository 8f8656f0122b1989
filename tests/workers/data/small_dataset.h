#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/json_reader.h"
#include "base/tensor_files.h"
#include "model/lenet.h"
#include "space/feature_manifest.h"
#include "tests/temporary_folder.h"
#include "workers/data/dataset.h"
#include "workers/data/extract.h"

namespace fusion::testing {

/// The message that `work` throws as an E; "" if it throws nothing.
template <typename E>
std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const E& error) {
    return error.what();
  }
  return "";
}

/// Reads a manifest, lets `edit` change it, and writes it back with a digest that is right.
inline void edit_manifest(const std::filesystem::path& file, const std::function<void(nlohmann::json&)>& edit) {
  nlohmann::json document = parse_json_file(file);
  edit(document);
  write_manifest(file, document);
}

/// Overwrites one byte in place.
inline void flip_byte(const std::filesystem::path& file, std::streamoff at) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(at);
  const int byte = stream.get();
  stream.seekp(at);
  stream.put(static_cast<char>(byte ^ 0x40));
}

/// A dataset by hand: 40 train, 12 dev rows (of the same arrays) and 10 test rows; "dots" [1, 8, 8] as bytes, "waves" [1, 6, 10] as
/// float64 rows of 60 numbers, three classes. The values follow from the row, so that a test can tell what a batch must hold.
class SmallDataset {
 public:
  static constexpr std::int64_t kDots = 64, kWaves = 60;
  static std::uint8_t dot(std::int64_t row, std::int64_t i) { return static_cast<std::uint8_t>((row * 37 + i * 11) % 256); }
  static double wave(std::int64_t row, std::int64_t i) { return 0.25 * static_cast<double>((row * 7 + i * 3) % 41) - 5; }
  static std::uint8_t label(std::int64_t row) { return static_cast<std::uint8_t>(row % 3); }

  SmallDataset() {
    write("all", 52);
    write("held", 10);
    nlohmann::json document = nlohmann::json::parse(R"({
      "format": "fusiond-dataset-1", "name": "small", "classes": 3, "parameters": {},
      "modalities": [
        {"name": "dots", "shape": [1, 8, 8], "mean": 100, "std": 50, "files": {"all": "dots-all.npy", "held": "dots-held.npy"}},
        {"name": "waves", "shape": [1, 6, 10], "mean": 0, "std": 2, "files": {"all": "waves-all.npy", "held": "waves-held.npy"}}],
      "labels": {"all": "labels-all.npy", "held": "labels-held.npy"},
      "splits": {"train": {"of": "all", "begin": 0, "end": 40}, "dev": {"of": "all", "begin": 40, "end": 52},
                 "test": {"of": "held", "begin": 0, "end": 10}}})");
    write_manifest(manifest(), document);
    sign();
  }

  std::filesystem::path manifest() const { return folder / "dataset.json"; }

  /// Makes the manifest's digests true again.
  void sign() const {
    edit_manifest(manifest(), [&](nlohmann::json& document) {
      document["sha256"] = nlohmann::json::object();
      for (const char* file : {"dots-all.npy", "dots-held.npy", "waves-all.npy", "waves-held.npy", "labels-all.npy", "labels-held.npy"}) {
        document["sha256"][file] = sha256_of_file(folder / file);
      }
    });
  }

  /// Untrained backbones: what extraction does with them is as good to test.
  void write_backbones() const {
    LeNetOptions dots;
    dots.blocks = 2;
    dots.channels = 4;
    dots.height = dots.width = 8;
    dots.classes = 3;
    LeNetOptions waves = dots;
    waves.height = 6;
    waves.width = 10;
    waves.first_tap_after_pool = true;
    LeNet(dots, 1).save(folder / "backbones/dots.safetensors");
    LeNet(waves, 2).save(folder / "backbones/waves.safetensors");
  }

  TemporaryFolder folder;

 private:
  void write(const std::string& array, std::int64_t rows) const {
    std::vector<std::uint8_t> dots, labels;
    std::vector<double> waves;
    for (std::int64_t row = 0; row < rows; ++row) {
      labels.push_back(label(row));
      for (std::int64_t i = 0; i < kDots; ++i) dots.push_back(dot(row, i));
      for (std::int64_t i = 0; i < kWaves; ++i) waves.push_back(wave(row, i));
    }
    write_npy(folder / ("dots-" + array + ".npy"), {DType::u8, {rows, 8, 8}, dots.data()});
    write_npy(folder / ("waves-" + array + ".npy"), {DType::f64, {rows, kWaves}, waves.data()});
    write_npy(folder / ("labels-" + array + ".npy"), {DType::u8, {rows}, labels.data()});
  }
};

}  // namespace fusion::testing
