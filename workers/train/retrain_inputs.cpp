#include "workers/train/retrain_inputs.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include "base/error.h"
#include "base/json_reader.h"
#include "model/torch_compat.h"
#include "space/feature_manifest.h"

namespace fusion {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

/// Where the manifest does not say: imported features, or of a time before it did.
const char* const kMakeIt = "; make features whose manifest names dataset and backbones with: fusion-data extract DATASET "
                            "--backbone MODALITY=FILE (or retrain with head linear and finetune none)";

std::string text_of(const json& object, const char* key) {
  return object.is_object() && object.contains(key) && object[key].is_string() ? object[key].get<std::string>() : "";
}


}  // namespace

RetrainInputs::RetrainInputs(const RetrainingJob& job, const at::TensorOptions& tensors)
    : manifest_(feature_manifest_path(job.dataset_path)),
      architecture_(job.architecture),
      temporal_(is_temporal(job.options.head)),
      features_(FeatureSet::open(manifest_, job.dataset_digest)) {
  spec().check(job.architecture);
  const json manifest = parse_json_file(manifest_);
  for (const ModalitySpec& modality : spec().modalities) {
    ModelModality& of_model = modalities_.emplace_back();
    of_model.name = modality.name;
    for (const TapSpec& tap : modality.taps) of_model.tap_widths.push_back(tap.width);
  }
  open_backbones(job, manifest, tensors);
  describe(manifest);
}

void RetrainInputs::open_backbones(const RetrainingJob& job, const json& manifest, const at::TensorOptions& tensors) {
  const std::string source = text_of(manifest, "source");
  std::vector<std::string> files;
  for (const json& modality : manifest.at("modalities")) files.push_back(text_of(modality.value("backbone", json::object()), "file"));
  const bool named = !source.empty() && std::none_of(files.begin(), files.end(), [](const std::string& file) { return file.empty(); });
  if (!named) {
    if (job.options.head == HeadKind::linear && job.options.finetune == Finetune::none) return;
    throw DataError(manifest_.string() + ": names no " + (source.empty() ? "dataset" : "backbones") + ", but head " +
                    std::string(name_of(job.options.head)) + " with finetune " + std::string(name_of(job.options.finetune)) +
                    " reads the networks' inputs" + kMakeIt);
  }
  const fs::path folder = manifest_.parent_path();
  dataset_ = Dataset::open((folder / source).lexically_normal());
  if (dataset_->manifest().digest != text_of(manifest, "dataset_digest")) {
    throw DataError(dataset_->file().string() + ": its digest is " + dataset_->manifest().digest + ", but the features were made from " +
                    text_of(manifest, "dataset_digest") + "; extract them again");
  }
  for (std::size_t m = 0; m < modalities_.size(); ++m) {
    places_.push_back(dataset_->modality(modalities_[m].name));
    const ModalityManifest& from = dataset_->manifest().modalities[places_[m]];
    const fs::path file = (folder / files[m]).lexically_normal();
    if (!fs::exists(file)) {
      throw DataError(file.string() + ": the backbone of \"" + modalities_[m].name + "\" is not there; " + manifest_.string() + " names it");
    }
    modalities_[m].row_shape = from.shape;
    modalities_[m].time_axis = from.time_axis;
    modalities_[m].backbone = open_staged_backbone(file, from.shape, tensors);
    const std::string digest = text_of(manifest["modalities"][m]["backbone"], "digest");
    if (modalities_[m].backbone->digest() != digest) {
      throw DataError(file.string() + ": its SHA-256 is " + modalities_[m].backbone->digest() + ", but the features were made by " + digest +
                      "; extract them again");
    }
  }
}

void RetrainInputs::describe(const json& manifest) {
  description_ = json::array();
  for (std::size_t m = 0; m < modalities_.size(); ++m) {
    json taps = json::array();
    for (const TapSpec& tap : spec().modalities[m].taps) taps.push_back({{"name", tap.name}, {"width", tap.width}});
    json entry = {{"name", modalities_[m].name}, {"taps", taps}};
    if (dataset_) {
      const ModalityManifest& from = dataset_->manifest().modalities[places_[m]];
      entry["shape"] = from.shape;
      entry["mean"] = from.mean;
      entry["std"] = from.std;
      if (from.time_axis) entry["time_axis"] = *from.time_axis;
      entry["backbone"] = modalities_[m].backbone->describe();
    }
    const json named = manifest["modalities"][m].value("backbone", json::object());
    for (const char* key : {"kind", "digest"}) {
      if (named.contains(key)) entry["backbone"][key] = named[key];
    }
    description_.push_back(std::move(entry));
  }
}

bool RetrainInputs::store_tokens(const std::vector<std::vector<std::int64_t>>& times) const {
  for (std::size_t m = 0; m < times.size(); ++m) {
    for (const FusionStep& step : architecture_.steps) {
      const auto i = static_cast<std::size_t>(step.taps[m]);
      if (features_->time(m, i) != times[m][i]) return false;
    }
  }
  return !times.empty();
}

RetrainBatch RetrainInputs::batch(const std::string& split, std::span<const std::int64_t> rows, bool from_inputs) const {
  const at::NoGradGuard no_grad;
  RetrainBatch batch;
  batch.rows = static_cast<std::int64_t>(rows.size());
  const FeatureSplit& stored = features_->split(split);
  const at::Tensor index = at::from_blob(const_cast<std::int64_t*>(rows.data()), {batch.rows}, at::TensorOptions().dtype(at::kLong));
  batch.labels = at::index_select(stored.labels, 0, index);
  if (from_inputs) {
    for (std::size_t m = 0; m < places_.size(); ++m) batch.inputs.push_back(dataset_->batch(places_[m], split, rows));
    return batch;
  }
  batch.taps.resize(stored.taps.size());
  for (std::size_t m = 0; m < stored.taps.size(); ++m) {
    batch.taps[m].resize(stored.taps[m].size());
    for (const FusionStep& step : architecture_.steps) {
      const auto i = static_cast<std::size_t>(step.taps[m]);
      if (batch.taps[m][i].defined()) continue;
      const bool over_time = temporal_ && stored.sequences[m][i].defined();
      batch.taps[m][i] = at::index_select(over_time ? stored.sequences[m][i] : stored.taps[m][i], 0, index).to(at::kFloat);
    }
    const at::Tensor& own = stored.logits[m];
    batch.logits.push_back(own.defined() ? at::index_select(own, 0, index) : at::Tensor());
  }
  return batch;
}

}  // namespace fusion
