#include "workers/data/import_features.h"

#include <ATen/ops/from_blob.h>

#include <optional>
#include <set>

#include "base/digest.h"
#include "base/error.h"
#include "base/json_reader.h"
#include "base/tensor_files.h"
#include "model/backbone.h"
#include "model/tensor_io.h"
#include "workers/data/file_checks.h"

namespace fusion {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr const char* kFormat = "fusiond-import-1";

struct TapSource {
  std::string name;
  std::map<std::string, std::string> files;  ///< split -> "FILE.npy" or "FILE.safetensors:TENSOR"
};

struct ModalitySource {
  std::string name;
  std::vector<TapSource> taps;
  std::optional<TapSource> logits;
};

struct ImportSpecification {
  std::string name;
  std::int64_t classes = 0;
  std::vector<std::string> class_names;
  std::vector<ModalitySource> modalities;
  std::map<std::string, std::string> labels;  ///< split -> file
};

std::map<std::string, std::string> read_sources(JsonReader& reader, const char* key) {
  std::map<std::string, std::string> files;
  JsonReader object = reader.object(key, true);
  for (const auto& [split, value] : object.value().items()) {
    if (split != "train" && split != "dev" && split != "test") object.fail(split, "is not a split; there are train, dev and test");
    files[split] = object.text(split);
  }
  for (const char* split : {"train", "dev"}) {
    if (reader.has(key) && !files.contains(split)) reader.fail(key, std::string("the split \"") + split + "\" is missing");
  }
  return files;
}

ModalitySource read_modality(JsonReader& reader, const ImportSpecification& spec) {
  ModalitySource modality;
  modality.name = reader.text("name");
  std::set<std::string> names;
  const auto same_splits = [&](const TapSource& tap, JsonReader& at, const char* key) {
    for (const auto& [split, file] : spec.labels) {
      if (!tap.files.contains(split)) at.fail(key, "has no file for the split \"" + split + "\", which has labels");
    }
    for (const auto& [split, file] : tap.files) {
      if (!spec.labels.contains(split)) at.fail(key, "has a file for the split \"" + split + "\", which has no labels");
    }
  };
  for (JsonReader& tap : reader.list("taps", true)) {
    TapSource source{tap.text("name"), read_sources(tap, "files")};
    if (!names.insert(source.name).second) tap.fail("name", "the tap \"" + source.name + "\" stands twice");
    if (source.name == "logits") tap.fail("name", "\"logits\" is not a tap's name; class scores stand under /logits of the modality");
    same_splits(source, tap, "files");
    tap.finish();
    modality.taps.push_back(std::move(source));
  }
  if (modality.taps.empty()) reader.fail("taps", "expected at least one tap");
  if (reader.has("logits")) {
    modality.logits = TapSource{"logits", read_sources(reader, "logits")};
    same_splits(*modality.logits, reader, "logits");
  }
  reader.finish();
  return modality;
}

ImportSpecification read_specification(const fs::path& file) {
  const json document = parse_json_file(file);
  JsonProblems problems;
  JsonReader reader(document, file.string(), problems);
  ImportSpecification spec;
  const std::string format = reader.text("format");
  if (reader.has("format") && format != kFormat) {
    reader.fail("format", std::string("expected \"") + kFormat + "\", got \"" + format + "\"");
  }
  spec.name = reader.text("name");
  spec.classes = reader.integer("classes", 2, 1 << 20);
  spec.class_names = reader.texts("class_names", std::vector<std::string>{});
  if (!spec.class_names.empty() && static_cast<std::int64_t>(spec.class_names.size()) != spec.classes) {
    reader.fail("class_names", "expected " + std::to_string(spec.classes) + " names, got " + std::to_string(spec.class_names.size()));
  }
  spec.labels = read_sources(reader, "labels");
  std::set<std::string> names;
  for (JsonReader& entry : reader.list("modalities", true)) {
    spec.modalities.push_back(read_modality(entry, spec));
    const std::string& name = spec.modalities.back().name;
    if (!names.insert(name).second) entry.fail("name", "the modality \"" + name + "\" stands twice");
  }
  if (spec.modalities.size() < 2) reader.fail("modalities", "expected at least two");
  reader.finish();
  problems.throw_if_any();
  return spec;
}

/// Opens "FILE.npy" or "FILE.safetensors:TENSOR" (the tensor may be left out where the file has only one).
TensorView open_source(const fs::path& folder, const std::string& source) {
  const std::size_t colon = source.find(".safetensors:");
  const std::size_t end = colon == std::string::npos ? source.size() : colon + std::string(".safetensors").size();
  const fs::path file = folder / source.substr(0, end);
  if (file.extension() == ".npy") return open_npy(file);
  if (file.extension() != ".safetensors") {
    throw DataError(file.string() + ": expected a .npy file, or a .safetensors file with \":tensor\" behind it");
  }
  const SafetensorsFile opened = SafetensorsFile::open(file);
  if (colon != std::string::npos) return opened.at(source.substr(end + 1));
  if (opened.tensors().size() == 1) return opened.tensors().begin()->second;
  throw DataError(file.string() + ": holds " + std::to_string(opened.tensors().size()) +
                  " tensors; name one by writing \":tensor\" behind the file");
}

/// Reads everything the specification names; problems are collected.
class Importer {
 public:
  Importer(const fs::path& specification, const fs::path& out, TapType type)
      : folder_(specification.parent_path()), spec_(read_specification(specification)), writer_(out, true), type_(type) {}

  ImportResult run() {
    read_all();
    if (!problems_.empty()) throw DataError(join_problems(problems_));
    return write_all();
  }

 private:
  template <typename F>
  void guarded(const std::string& where, F&& work) {
    try {
      work();
    } catch (const DataError& error) {
      problems_.push_back(where + ": " + error.what());
    }
  }

  void read_all() {
    for (const auto& [split, source] : spec_.labels) {
      guarded("labels of " + split, [&] { labels_[split] = read_labels(source); });
    }
    features_.resize(spec_.modalities.size());
    for (std::size_t m = 0; m < spec_.modalities.size(); ++m) {
      std::vector<TapSource> sources = spec_.modalities[m].taps;
      if (spec_.modalities[m].logits) sources.push_back(*spec_.modalities[m].logits);
      for (const TapSource& tap : sources) {
        for (const std::string split : {"train", "dev", "test"}) {  // train first: its width is the one the others must have
          if (!tap.files.contains(split)) continue;
          const std::string& source = tap.files.at(split);
          const std::string where = spec_.modalities[m].name + "/" + tap.name + " of " + split;
          guarded(where, [&] { features_[m][split].emplace_back(tap.name, read_tap(source, split, m, tap.name)); });
        }
      }
    }
  }

  at::Tensor read_labels(const std::string& source) {
    const TensorView view = open_source(folder_, source);
    if (std::string problem = labels_problem(view, spec_.classes, source); !problem.empty()) throw DataError(problem);
    if (view.count() == 0) throw DataError(source + ": holds no labels");
    return copy_tensor(view).to(c10::kLong);
  }

  at::Tensor read_tap(const std::string& source, const std::string& split, std::size_t m, const std::string& name) {
    const TensorView view = open_source(folder_, source);
    if (view.shape.empty() || view.count() == 0) throw DataError(source + ": is empty; expected [rows, width]");
    const auto labels = labels_.find(split);
    if (labels != labels_.end() && view.shape[0] != labels->second.size(0)) {
      throw DataError(source + ": has " + std::to_string(view.shape[0]) + " rows, but there are " +
                      std::to_string(labels->second.size(0)) + " labels");
    }
    if (const auto at = first_not_finite(view)) {
      throw DataError(source + ": row " + std::to_string(*at / (view.count() / view.shape[0])) +
                      " holds a value that is not a finite number");
    }
    at::Tensor tap = pool_tap(copy_tensor(view).to(c10::kFloat)).contiguous();
    const std::int64_t width = tap.size(1);
    if (name == "logits" && width != spec_.classes) {
      throw DataError(source + ": has " + std::to_string(width) + " scores a row; expected " + std::to_string(spec_.classes) +
                      ", one per class");
    }
    const auto [known, first] = widths_.try_emplace({m, name}, width);
    if (!first && known->second != width) {
      throw DataError(source + ": has the width " + std::to_string(width) + ", train has " + std::to_string(known->second));
    }
    return tap;
  }

  ImportResult write_all() {
    ImportResult result;
    result.manifest.tap_type = type_;
    DatasetSpec& spec = result.manifest.spec;
    spec.name = spec_.name;
    spec.classes = spec_.classes;
    spec.class_names = spec_.class_names;
    std::vector<std::string> names;
    for (std::size_t m = 0; m < spec_.modalities.size(); ++m) {
      const ModalitySource& source = spec_.modalities[m];
      ModalitySpec& modality = spec.modalities.emplace_back(ModalitySpec{source.name, {}, source.logits.has_value()});
      for (const TapSource& tap : source.taps) modality.taps.push_back({tap.name, widths_.at({m, tap.name})});
      result.manifest.backbones.push_back({{"kind", "imported"}});
      names.push_back(source.name);
    }
    Sha256 sources;
    for (const auto& [split, labels] : labels_) write_split(split, labels, names, result.manifest, sources);
    result.manifest.dataset_digest = sources.hex();
    result.digest = write_feature_manifest(writer_.folder(), result.manifest);
    result.file = writer_.folder() / "features.json";
    return result;
  }

  void write_split(const std::string& split, const at::Tensor& labels, const std::vector<std::string>& names,
                   FeatureManifest& manifest, Sha256& sources) {
    manifest.spec.rows[split] = labels.size(0);
    auto& files = manifest.files[split];
    const auto keep = [&](const std::string& what, const NamedTensors& tensors) {
      Sha256 content;
      for (const auto& [name, tensor] : tensors) {
        content.update(name);
        content.update(tensor.data_ptr(), tensor.nbytes());
      }
      const std::string key = content.hex();
      sources.update(key);
      writer_.write(split, what, key, tensors);
      return writer_.file(split, what, key);
    };
    files.first = keep("labels", {{"labels", labels}});
    std::vector<at::Tensor> logits;
    for (std::size_t m = 0; m < names.size(); ++m) {
      const NamedTensors& tensors = features_[m].at(split);
      files.second.push_back(keep(names[m], as_stored(tensors, type_)));
      logits.push_back(manifest.spec.modalities[m].has_logits ? tensors.back().second : at::Tensor());
    }
    add_baselines(manifest.baselines, split, names, logits, labels);
  }

  fs::path folder_;
  ImportSpecification spec_;
  FeatureWriter writer_;
  TapType type_;
  std::map<std::string, at::Tensor> labels_;
  std::vector<std::map<std::string, NamedTensors>> features_;  ///< [modality][split]: taps in order, logits last
  std::map<std::pair<std::size_t, std::string>, std::int64_t> widths_;
  std::vector<std::string> problems_;
};

}  // namespace

ImportResult import_features(const fs::path& specification, const fs::path& out, TapType type) {
  return Importer(specification, out, type).run();
}

}  // namespace fusion
