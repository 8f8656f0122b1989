#include "workers/data/feature_writer.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/log_softmax.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

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

/// Throws DataError for the first value that is not finite; `first_row` is the number of row 0.
void check_finite(const std::string& subject, const NamedTensors& tensors, std::int64_t first_row) {
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.is_floating_point()) continue;
    const bool half = tensor.scalar_type() == c10::kBFloat16;
    TORCH_CHECK((half || tensor.scalar_type() == c10::kFloat) && tensor.is_contiguous(), "features are contiguous float32 or bfloat16");
    TensorView view{half ? DType::bf16 : DType::f32, tensor.sizes().vec(), static_cast<const std::byte*>(tensor.data_ptr()),
                    tensor.nbytes(), nullptr};
    if (const auto at = first_not_finite(view)) {
      throw DataError(subject + ": \"" + name + "\": row " +
                      std::to_string(first_row + *at / std::max<std::int64_t>(1, tensor.numel() / tensor.size(0))) + " is not finite" +
                      (half ? ", or too large for bf16" : ""));
    }
  }
}

/// Of names and bytes, by name.
std::string content_digest(const NamedTensors& tensors) {
  std::map<std::string, at::Tensor> by_name(tensors.begin(), tensors.end());
  Sha256 content;
  for (const auto& [name, tensor] : by_name) {
    content.update(name + '\n');
    content.update(tensor.data_ptr(), tensor.nbytes());
  }
  return content.hex();
}

std::string content_digest(const SafetensorsFile& file) {
  Sha256 content;
  for (const auto& [name, view] : file.tensors()) {
    content.update(name + '\n');
    content.update(view.data, view.bytes);
  }
  return content.hex();
}

constexpr std::string_view kRowsSuffix = ".part";

/// "train-audio-<key>.rows-": the rest is "<begin>-<end>.part".
std::string rows_prefix(const std::filesystem::path& file) { return file.stem().string() + ".rows-"; }

struct SavedRows {
  std::int64_t begin = 0, end = 0;
  std::filesystem::path file;
};

/// By their first row; of several that begin there the longest first.
std::vector<SavedRows> saved_rows(const std::filesystem::path& folder, const std::string& prefix) {
  std::vector<SavedRows> all;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(kRowsSuffix)) continue;
    SavedRows rows;
    const char* const text = name.data() + prefix.size();
    const char* const end = name.data() + name.size() - kRowsSuffix.size();
    const auto first = std::from_chars(text, end, rows.begin);
    if (first.ec != std::errc{} || first.ptr == end || *first.ptr != '-') continue;
    const auto last = std::from_chars(first.ptr + 1, end, rows.end);
    if (last.ec != std::errc{} || last.ptr != end || rows.end <= rows.begin) continue;
    rows.file = entry.path();
    all.push_back(std::move(rows));
  }
  std::sort(all.begin(), all.end(), [](const SavedRows& a, const SavedRows& b) { return std::pair(a.begin, -a.end) < std::pair(b.begin, -b.end); });
  return all;
}

/// "<file>.tmp.<pid>" of a process that is no more (write_atomically).
bool left_by_the_dead(const std::string& name) {
  const std::size_t at = name.rfind(".tmp.");
  if (at == std::string::npos) return false;
  pid_t pid = 0;
  const auto [stop, problem] = std::from_chars(name.data() + at + 5, name.data() + name.size(), pid);
  return problem == std::errc{} && stop == name.data() + name.size() && pid > 0 && ::kill(pid, 0) != 0 && errno == ESRCH;
}

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

/// A file of ours if it is what its metadata says: made from `key`, its tensors as they were written.
std::optional<SafetensorsFile> FeatureWriter::open_whole(const std::filesystem::path& file, const std::string& key) const {
  SafetensorsFile opened = SafetensorsFile::open(file);
  const auto says = [&](const char* name, const std::string& text) {
    const auto found = opened.metadata().find(name);
    return found != opened.metadata().end() && found->second == text;
  };
  if (!says("key", sha256_of(key)) || !says("content", content_digest(opened))) return std::nullopt;
  return opened;
}

std::optional<NamedTensors> FeatureWriter::find(
    const std::string& split, const std::string& what, const std::string& key,
    const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& expected) const {
  const std::filesystem::path file = path(split, what, key);
  if (force_ || !std::filesystem::exists(file)) return std::nullopt;
  try {
    const std::string recorded = recorded_sha256(folder_, file.filename().string());
    if (!recorded.empty() && recorded != remembered_sha256(file)) return std::nullopt;
    const auto opened = open_whole(file, key);
    if (!opened) return std::nullopt;
    NamedTensors tensors;
    for (const auto& [name, shape] : expected) {
      const TensorView& view = opened->at(name);
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
  check_finite(split + " features of " + what, tensors, 0);
  write_tensors(path(split, what, key), tensors, {{"key", sha256_of(key)}, {"content", content_digest(tensors)}});
}

void FeatureWriter::save_rows(const std::string& split, const std::string& what, const std::string& key, std::int64_t begin,
                              const NamedTensors& rows) const {
  check_finite(split + " features of " + what, rows, begin);
  std::string name = rows_prefix(path(split, what, key)) + std::to_string(begin) + "-";
  name += std::to_string(begin + rows.front().second.size(0)) + std::string(kRowsSuffix);
  write_tensors(folder_ / name, rows, {{"key", sha256_of(key)}, {"content", content_digest(rows)}});
}

std::int64_t FeatureWriter::restore_rows(const std::string& split, const std::string& what, const std::string& key,
                                         const NamedTensors& tensors) const {
  if (force_) return 0;
  std::int64_t there = 0;
  for (const SavedRows& saved : saved_rows(folder_, rows_prefix(path(split, what, key)))) {  // by their first row
    if (saved.begin != there) continue;
    try {
      const auto opened = open_whole(saved.file, key);
      if (!opened) continue;
      for (const auto& [name, tensor] : tensors) {
        const TensorView& view = opened->at(name);
        std::vector<std::int64_t> shape = tensor.sizes().vec();
        shape.front() = saved.end - saved.begin;
        if (view.shape != shape) throw DataError(saved.file.string());
        tensor.slice(0, saved.begin, saved.end).copy_(map_tensor(view));
      }
      there = saved.end;
    } catch (const DataError&) {
      // damaged: these rows are made again
    }
  }
  return there;
}

void FeatureWriter::forget_rows(const std::string& split, const std::string& what, const std::string& key) const {
  const std::string prefix = path(split, what, key).stem().string() + ".";
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && (name.ends_with(kRowsSuffix) || left_by_the_dead(name))) std::filesystem::remove(entry, ignored);
  }
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
  if (!manifest.source.empty()) document["source"] = manifest.source;
  document["baselines"] = manifest.baselines.to_json();
  if (manifest.spec.class_names.empty()) document.erase("class_names");
  for (std::size_t m = 0; m < manifest.backbones.size(); ++m) {
    document["modalities"][m]["backbone"] = manifest.backbones[m];
    document["modalities"][m]["dtype"] = name_of(manifest.tap_type);
    for (std::size_t i = 0; !manifest.times.empty() && i < manifest.times[m].size(); ++i) {
      if (manifest.times[m][i] > 0) document["modalities"][m]["taps"][i]["time"] = manifest.times[m][i];
    }
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
