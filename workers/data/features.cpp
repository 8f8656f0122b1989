#include "workers/data/features.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/tensor_files.h"
#include "model/tensor_io.h"
#include "space/feature_manifest.h"
#include "workers/data/file_checks.h"

namespace fusion {

namespace {

struct NamedFile {
  std::string file, sha256;
};

/// The `files` member of a manifest: per split its labels and its modalities, in the order of the head's.
struct SplitFiles {
  NamedFile labels;
  std::vector<NamedFile> modalities;
};

NamedFile read_named_file(JsonReader& reader) {
  NamedFile named{reader.text("file"), reader.text("sha256")};
  const std::filesystem::path path(named.file);
  if (path.is_absolute() || named.file.find("..") != std::string::npos) {
    reader.fail("file", "expected a path below the manifest's folder, got \"" + named.file + "\"");
  }
  reader.finish();
  return named;
}

/// What a manifest says beyond its head.
struct Storage {
  std::vector<TapType> tap_types;                ///< [m]
  std::vector<std::vector<std::int64_t>> times;  ///< [m][tap], 0 for a tap without tokens over time
  std::map<std::string, SplitFiles> files;
};

Storage read_storage(const std::filesystem::path& manifest, const DatasetSpec& spec) {
  const nlohmann::json document = parse_json_file(manifest);
  JsonProblems problems;
  JsonReader reader(document, manifest.string(), problems);
  Storage storage;
  for (JsonReader& modality : reader.list("modalities", true)) {
    storage.tap_types.push_back(modality.choice<TapType>("dtype", TapType::f32));
    auto& times = storage.times.emplace_back();
    for (JsonReader& tap : modality.list("taps", true)) times.push_back(tap.integer("time", 0, 1 << 24, 0));
  }
  JsonReader files = reader.object("files", true);
  for (const auto& [split, rows] : spec.rows) {
    if (!files.has(split)) {
      files.fail(split, "is missing, though /rows names it");
      continue;
    }
    JsonReader entry = files.object(split, true);
    JsonReader labels = entry.object("labels", true);
    SplitFiles& of_split = storage.files[split];
    of_split.labels = read_named_file(labels);
    for (JsonReader& modality : entry.list("modalities", true)) of_split.modalities.push_back(read_named_file(modality));
    if (of_split.modalities.size() != spec.modalities.size()) {
      entry.fail("modalities", "expected one file for each of the " + std::to_string(spec.modalities.size()) + " modalities, got " +
                                   std::to_string(of_split.modalities.size()));
    }
    entry.finish();
  }
  files.finish();
  problems.throw_if_any();
  return storage;
}

/// Opens one split's files; problems are collected.
class SplitOpener {
 public:
  SplitOpener(std::filesystem::path folder, const DatasetSpec& spec, std::int64_t rows, std::vector<std::string>& problems)
      : folder_(std::move(folder)), spec_(spec), problems_(problems) {
    split_.rows = rows;
  }

  FeatureSplit open(const SplitFiles& files, const Storage& storage) {
    split_.taps.resize(spec_.modalities.size());
    split_.sequences.resize(spec_.modalities.size());
    split_.logits.resize(spec_.modalities.size());
    guarded([&] { open_labels(files.labels); });
    for (std::size_t m = 0; m < spec_.modalities.size(); ++m) guarded([&] { open_modality(files.modalities[m], storage, m); });
    return std::move(split_);
  }

 private:
  template <typename F>
  void guarded(F&& work) {
    try {
      work();
    } catch (const DataError& error) {
      problems_.emplace_back(error.what());
    }
  }

  SafetensorsFile verified(const NamedFile& named) const {
    const std::filesystem::path file = folder_ / named.file;
    if (!std::filesystem::exists(file)) {
      throw DataError(file.string() + ": is missing; make it again with fusion-data extract");
    }
    if (const std::string digest = remembered_sha256(file); digest != named.sha256) {
      throw DataError(file.string() + ": its SHA-256 is " + digest + ", but the manifest says " + named.sha256 +
                      "; the file was changed or damaged, make it again with fusion-data extract --force");
    }
    return SafetensorsFile::open(file);
  }

  void open_labels(const NamedFile& named) {
    const SafetensorsFile file = verified(named);
    const TensorView& view = file.at("labels");
    const std::string subject = file.path().string() + ": tensor \"labels\"";
    if (view.dtype != DType::i64 || view.shape != std::vector<std::int64_t>{split_.rows}) {
      throw DataError(subject + ": expected I64 of shape " + shape_text({split_.rows}) + ", got " + std::string(name_of(view.dtype)) +
                      " of shape " + shape_text(view.shape));
    }
    if (std::string problem = labels_problem(view, spec_.classes, subject); !problem.empty()) throw DataError(problem);
    split_.labels = map_tensor(view);
  }

  void open_modality(const NamedFile& named, const Storage& storage, std::size_t m) {
    const SafetensorsFile file = verified(named);
    const ModalitySpec& modality = spec_.modalities[m];
    const DType dtype = storage.tap_types[m] == TapType::bf16 ? DType::bf16 : DType::f32;
    split_.sequences[m].resize(modality.taps.size());
    for (std::size_t i = 0; i < modality.taps.size(); ++i) {
      const TapSpec& tap = modality.taps[i];
      guarded([&] { split_.taps[m].push_back(checked(file, tap.name, dtype, {split_.rows, tap.width})); });
      const std::int64_t time = storage.times[m][i];
      if (time == 0) continue;
      guarded([&] { split_.sequences[m][i] = checked(file, sequence_name(tap.name), dtype, {split_.rows, time, tap.width}); });
    }
    if (modality.has_logits) split_.logits[m] = checked(file, "logits", DType::f32, {split_.rows, spec_.classes});
  }

  at::Tensor checked(const SafetensorsFile& file, const std::string& name, DType dtype, const std::vector<std::int64_t>& shape) const {
    const TensorView& view = file.at(name);
    const std::string subject = file.path().string() + ": tensor \"" + name + "\"";
    if (view.dtype != dtype || view.shape != shape) {
      throw DataError(subject + ": expected " + std::string(name_of(dtype)) + " of shape " + shape_text(shape) + ", got " +
                      std::string(name_of(view.dtype)) + " of shape " + shape_text(view.shape));
    }
    if (const auto at = first_not_finite(view)) {
      const std::int64_t numbers = view.count() / split_.rows;
      throw DataError(subject + ": row " + std::to_string(*at / numbers) + ", column " + std::to_string(*at % numbers) +
                      " is not a finite number");
    }
    return map_tensor(view);
  }

  std::filesystem::path folder_;
  const DatasetSpec& spec_;
  std::vector<std::string>& problems_;
  FeatureSplit split_;
};

}  // namespace

std::string sequence_name(const std::string& tap) { return tap + "@time"; }

std::shared_ptr<const FeatureSet> FeatureSet::open(const std::filesystem::path& manifest, const std::string& expected_digest) {
  const auto set = std::make_shared<FeatureSet>();
  std::vector<std::string> problems;
  try {
    const std::filesystem::path path = feature_manifest_path(manifest);
    set->spec_ = read_feature_manifest(path);
    if (!expected_digest.empty() && set->spec_.digest != expected_digest) {
      throw DataError(path.string() + ": its digest is " + set->spec_.digest + ", expected " + expected_digest +
                      "; the features were made anew since");
    }
    const Storage storage = read_storage(path, set->spec_);
    set->tap_types_ = storage.tap_types;
    set->times_ = storage.times;
    for (const auto& [split, of_split] : storage.files) {
      SplitOpener opener(path.parent_path(), set->spec_, set->spec_.rows.at(split), problems);
      set->splits_[split] = opener.open(of_split, storage);
    }
  } catch (const ConfigError& error) {
    throw DataError(error.what());
  }
  if (!problems.empty()) throw DataError(join_problems(problems));
  return set;
}

const FeatureSplit& FeatureSet::split(const std::string& name) const {
  const auto found = splits_.find(name);
  if (found != splits_.end()) return found->second;
  throw DataError("the features of \"" + spec_.name + "\" have no split \"" + name + "\"");
}

}  // namespace fusion
