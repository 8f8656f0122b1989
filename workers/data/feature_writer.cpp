#include "workers/data/feature_writer.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/log_softmax.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/tensor_files.h"
#include "model/tensor_io.h"
#include "space/feature_manifest.h"
#include "workers/data/dataset.h"
#include "workers/data/file_checks.h"

namespace fusion {

using nlohmann::json;

namespace {

/// What the manifest that is there now says of a file's digest; "" if it says nothing.
std::string recorded_sha256(const std::filesystem::path& folder, const std::string& name) {
  if (!std::filesystem::exists(folder / "features.json")) return "";
  try {
    const json document = parse_json_file(folder / "features.json");
    for (const auto& [split, entry] : document.at("files").items()) {
      if (entry.at("labels").at("file") == name) return entry.at("labels").at("sha256");
      for (const json& modality : entry.at("modalities")) {
        if (modality.at("file") == name) return modality.at("sha256");
      }
    }
  } catch (const std::exception&) {
    // A manifest that cannot be read says nothing; it is about to be replaced.
  }
  return "";
}

double accuracy(const at::Tensor& scores, const at::Tensor& labels) {
  return static_cast<double>(at::argmax(scores, 1).eq(labels).sum().item<std::int64_t>()) / static_cast<double>(labels.size(0));
}

json to_json(const FeatureFile& file) { return {{"file", file.file}, {"sha256", file.sha256}}; }

}  // namespace

NamedTensors as_stored(const NamedTensors& tensors, TapType type) {
  NamedTensors stored = tensors;
  for (auto& [name, tensor] : stored) {
    if (type == TapType::bf16 && name != "logits") tensor = tensor.to(c10::kBFloat16);
  }
  return stored;
}

std::filesystem::path FeatureWriter::path(const std::string& split, const std::string& what, const std::string& key) const {
  return folder_ / (split + "-" + what + "-" + sha256_of(key).substr(0, 16) + ".safetensors");
}

std::optional<NamedTensors> FeatureWriter::find(
    const std::string& split, const std::string& what, const std::string& key,
    const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& expected) const {
  const std::filesystem::path file = path(split, what, key);
  if (force_ || !std::filesystem::exists(file)) return std::nullopt;
  try {
    const std::string recorded = recorded_sha256(folder_, file.filename().string());
    if (!recorded.empty() && recorded != remembered_sha256(file)) return std::nullopt;
    const SafetensorsFile opened = SafetensorsFile::open(file);
    const auto made_from = opened.metadata().find("key");
    if (made_from == opened.metadata().end() || made_from->second != sha256_of(key)) return std::nullopt;
    NamedTensors tensors;
    for (const auto& [name, shape] : expected) {
      const TensorView& view = opened.at(name);
      if (view.shape != shape || first_not_finite(view)) return std::nullopt;
      tensors.emplace_back(name, map_tensor(view));
    }
    return tensors;
  } catch (const DataError&) {
    return std::nullopt;  // damaged: made again
  }
}

void FeatureWriter::write(const std::string& split, const std::string& what, const std::string& key,
                          const NamedTensors& tensors) const {
  const std::filesystem::path file = path(split, what, key);
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.is_floating_point()) continue;
    const bool half = tensor.scalar_type() == c10::kBFloat16;
    TORCH_CHECK((half || tensor.scalar_type() == c10::kFloat) && tensor.is_contiguous(), "features are contiguous float32 or bfloat16");
    TensorView view{half ? DType::bf16 : DType::f32, tensor.sizes().vec(), static_cast<const std::byte*>(tensor.data_ptr()),
                    tensor.nbytes(), nullptr};
    if (const auto at = first_not_finite(view)) {
      throw DataError(split + " features of " + what + ": \"" + name + "\": row " +
                      std::to_string(*at / std::max<std::int64_t>(1, tensor.numel() / tensor.size(0))) + " is not finite" + (half ? ", or too large for bf16" : ""));
    }
  }
  write_tensors(file, tensors, {{"key", sha256_of(key)}});
}

FeatureFile FeatureWriter::file(const std::string& split, const std::string& what, const std::string& key) const {
  const std::filesystem::path file = path(split, what, key);
  return {file.filename().string(), remembered_sha256(file)};
}

void add_baselines(Baselines& baselines, const std::string& split, const std::vector<std::string>& modalities,
                   const std::vector<at::Tensor>& logits, const at::Tensor& labels) {
  at::Tensor sum, log_sum;
  bool all = true;
  for (std::size_t m = 0; m < modalities.size(); ++m) {
    if (!logits[m].defined()) {
      all = false;
      continue;
    }
    baselines.unimodal[modalities[m]][split] = accuracy(logits[m], labels);
    const at::Tensor log_probability = at::log_softmax(logits[m], 1);
    sum = sum.defined() ? sum.add(logits[m]) : logits[m];
    log_sum = log_sum.defined() ? log_sum.add(log_probability) : log_probability;
  }
  if (!all || modalities.size() < 2) return;
  baselines.sum_logits[split] = accuracy(sum, labels);
  baselines.sum_log_softmax[split] = accuracy(log_sum, labels);
}

json Baselines::to_json() const {
  json document = {{"unimodal", unimodal}};
  if (!sum_logits.empty()) document["late_fusion"] = {{"sum_logits", sum_logits}, {"sum_log_softmax", sum_log_softmax}};
  return document;
}

std::string write_feature_manifest(const std::filesystem::path& folder, const FeatureManifest& manifest) {
  json document = manifest.spec.to_json();
  document["format"] = "fusiond-features-1";
  document["dataset_digest"] = manifest.dataset_digest;
  document["baselines"] = manifest.baselines.to_json();
  if (manifest.spec.class_names.empty()) document.erase("class_names");
  for (std::size_t m = 0; m < manifest.backbones.size(); ++m) {
    document["modalities"][m]["backbone"] = manifest.backbones[m];
    document["modalities"][m]["dtype"] = name_of(manifest.tap_type);
  }
  for (const auto& [split, files] : manifest.files) {
    json modalities = json::array();
    for (const FeatureFile& file : files.second) modalities.push_back(to_json(file));
    document["files"][split] = {{"labels", to_json(files.first)}, {"modalities", modalities}};
  }
  write_manifest(folder / "features.json", document);
  return manifest_digest(document);
}

}  // namespace fusion
