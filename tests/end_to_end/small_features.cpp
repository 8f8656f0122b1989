#include "tests/end_to_end/small_features.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "base/digest.h"
#include "base/files.h"
#include "base/random.h"
#include "base/tensor_files.h"
#include "space/feature_manifest.h"

namespace fusion::testing {

namespace {

using nlohmann::json;
constexpr std::int64_t kClasses = 4;

struct Tap {
  std::string name;
  std::int64_t width;
  double signal;  ///< how far the class means lie apart
  int bit;        ///< which half of the label it carries
};
const std::vector<std::pair<std::string, std::vector<Tap>>> kModalities{
    {"audio", {{"tap0", 3, 0.1, 0}, {"tap1", 6, 1.0, 0}, {"tap2", 8, 0.3, 1}}},
    {"image", {{"tap0", 4, 0.1, 1}, {"tap1", 8, 1.2, 1}}}};

std::vector<float> values_of(const Tap& tap, const std::vector<std::int64_t>& labels, Rng& rng) {
  std::vector<float> values;
  for (const std::int64_t label : labels) {
    const double sign = ((label >> tap.bit) & 1) != 0 ? 1 : -1;
    for (std::int64_t i = 0; i < tap.width; ++i) values.push_back(static_cast<float>(rng.normal() + sign * tap.signal));
  }
  return values;
}

json file_entry(const std::filesystem::path& folder, const std::string& name) {
  return {{"file", name}, {"sha256", sha256_of_file(folder / name)}};
}

json write_split(const std::filesystem::path& folder, const std::string& split, std::int64_t rows, const SmallFeatures& options,
                 std::uint64_t stream) {
  Rng rng(options.seed, stream);
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < rows; ++i) labels.push_back(static_cast<std::int64_t>(rng.below(kClasses)));
  json modalities = json::array();
  for (const auto& [modality, taps] : kModalities) {
    std::vector<std::vector<float>> data;
    std::vector<std::pair<std::string, TensorSource>> tensors;
    data.reserve(taps.size() + 1);
    for (const Tap& tap : taps) {
      data.push_back(values_of(tap, labels, rng));
      tensors.push_back({tap.name, {DType::f32, {rows, tap.width}, data.back().data()}});
    }
    if (options.logits) {
      std::vector<float> logits;
      for (std::int64_t i = 0; i < rows * kClasses; ++i) logits.push_back(static_cast<float>(rng.normal()));
      data.push_back(std::move(logits));
      tensors.push_back({"logits", {DType::f32, {rows, kClasses}, data.back().data()}});
    }
    const std::string name = split + "-" + modality + "-small.safetensors";
    write_safetensors(folder / name, tensors);
    modalities.push_back(file_entry(folder, name));
  }
  const std::string name = split + "-labels-small.safetensors";
  write_safetensors(folder / name, {{"labels", {DType::i64, {rows}, labels.data()}}});
  return {{"labels", file_entry(folder, name)}, {"modalities", modalities}};
}

}  // namespace

std::filesystem::path write_small_features(const std::filesystem::path& folder, const SmallFeatures& options) {
  std::filesystem::create_directories(folder);
  json modalities = json::array();
  for (const auto& [modality, taps] : kModalities) {
    json list = json::array();
    for (const Tap& tap : taps) list.push_back({{"name", tap.name}, {"width", tap.width}});
    modalities.push_back({{"name", modality}, {"has_logits", options.logits}, {"taps", list},
                          {"backbone", {{"kind", "imported"}, {"digest", ""}}}});
  }
  json manifest = {{"format", "fusiond-features-1"},
                   {"name", "small"},
                   {"dataset_digest", "small"},
                   {"classes", kClasses},
                   {"class_names", json::array()},
                   {"modalities", modalities},
                   {"rows", {{"train", options.train}, {"dev", options.dev}, {"test", options.test}}},
                   {"files",
                    {{"train", write_split(folder, "train", options.train, options, 1)},
                     {"dev", write_split(folder, "dev", options.dev, options, 2)},
                     {"test", write_split(folder, "test", options.test, options, 3)}}}};
  manifest["digest"] = manifest_digest(manifest);
  write_atomically(folder / "features.json", manifest.dump(2));
  return folder / "features.json";
}

}  // namespace fusion::testing
