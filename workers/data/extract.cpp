#include "workers/data/extract.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <chrono>
#include <memory>
#include <thread>

#include "base/error.h"
#include "model/backbone.h"
#include "model/staged_backbone.h"
#include "model/time_axis.h"
#include "model/torch_compat.h"
#include "workers/data/extract_lanes.h"

namespace fusion {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

/// A file as a manifest in `folder` names it, whether the folder is there yet or not.
std::string named_from(const fs::path& folder, const fs::path& file) {
  return fs::weakly_canonical(file).lexically_relative(fs::weakly_canonical(fs::absolute(folder))).generic_string();
}

/// One modality's backbone, once per thread.
struct Runners {
  fs::path file;
  std::vector<std::unique_ptr<Backbone>> instances;
  std::vector<std::unique_ptr<StagedBackbone>> staged;  ///< as many, where tokens over time are kept
  std::vector<std::int64_t> time_axes;                  ///< as ExtractPart's
  std::vector<std::int64_t> times;      ///< T per tap, 0 without; empty: only pooled taps are wanted
  const Backbone& first() const { return *instances.front(); }

  /// Names and shapes of what a split's file holds.
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> shapes(std::int64_t rows) const {
    std::vector<std::pair<std::string, std::vector<std::int64_t>>> all;
    const std::vector<TapSpec>& taps = first().taps();
    for (const TapSpec& tap : taps) all.push_back({tap.name, {rows, tap.width}});
    for (std::size_t i = 0; i < times.size(); ++i) {
      if (times[i] > 0) all.push_back({sequence_name(taps[i].name), {rows, times[i], taps[i].width}});
    }
    if (first().classes() > 0) all.push_back({"logits", {rows, first().classes()}});
    return all;
  }
};

/// Opens backbones that give maps, and learns from a row of zeros which of them keep time. Throws ConfigError if none does.
void find_times(const Dataset& dataset, std::vector<Runners>& runners, int threads) {
  bool any = false;
  std::string modalities;
  for (std::size_t m = 0; m < runners.size(); ++m) {
    const ModalityManifest& modality = dataset.manifest().modalities[m];
    modalities += (m == 0 ? "\"" : ", \"") + modality.name + "\"";
    for (int t = 0; t < threads; ++t) runners[m].staged.push_back(open_staged_backbone(runners[m].file, modality.shape));
    std::vector<std::int64_t> shape{1};
    shape.insert(shape.end(), modality.shape.begin(), modality.shape.end());
    const at::NoGradGuard no_grad;
    for (const at::Tensor& map : runners[m].staged.front()->forward(at::zeros(shape), false).maps) {
      const auto axis = time_axis_of(map, modality.time_axis);
      runners[m].time_axes.push_back(axis.value_or(0));
      runners[m].times.push_back(axis ? map.size(*axis) : 0);
      any = any || axis;
    }
  }
  if (any) return;
  throw ConfigError(dataset.file().string() + ": there is no time to keep: no tap of " + modalities +
                    " has a time axis behind its channels; name it with \"time_axis\" in dataset.json (-1 for spectrograms)");
}

std::vector<Runners> open_backbones(const Dataset& dataset, const ExtractOptions& options, int threads) {
  std::vector<std::string> problems;
  for (const auto& [name, file] : options.backbones) {
    try {
      (void)dataset.modality(name);
    } catch (const ConfigError& error) {
      problems.push_back("--backbone " + name + ": " + error.what());
    }
  }
  std::vector<Runners> all;
  for (const ModalityManifest& modality : dataset.manifest().modalities) {
    const auto chosen = options.backbones.find(modality.name);
    const fs::path own = dataset.file().parent_path() / "backbones" / (modality.name + ".safetensors");
    Runners& runners = all.emplace_back();
    runners.file = chosen == options.backbones.end() ? own : chosen->second;
    if (!fs::exists(runners.file)) {
      problems.push_back(runners.file.string() + ": the backbone of \"" + modality.name + "\" is not there; make it with: fusion-data " +
                         "train-backbones " + dataset.file().string() + ", or name yours with --backbone " + modality.name + "=FILE");
      continue;
    }
    try {
      for (int t = 0; t < threads; ++t) runners.instances.push_back(open_backbone(runners.file, modality.shape));
    } catch (const Error& error) {
      problems.emplace_back(error.what());
      continue;
    }
    const std::int64_t classes = runners.first().classes();
    if (classes != 0 && classes != dataset.manifest().classes) {
      problems.push_back(runners.file.string() + ": gives " + std::to_string(classes) + " class scores; \"" + dataset.manifest().name +
                         "\" has " + std::to_string(dataset.manifest().classes) + " classes");
    }
  }
  if (!problems.empty()) throw ConfigError(problems);
  return all;
}

/// Empty tensors for one split's taps and, behind them, logits.
NamedTensors make_outputs(const Runners& runners, std::int64_t rows) {
  NamedTensors outputs;
  for (const auto& [name, shape] : runners.shapes(rows)) outputs.emplace_back(name, at::empty(shape, at::TensorOptions().dtype(c10::kFloat)));
  return outputs;
}

/// What made one file: equal text, equal content.
std::string key_text(const Dataset& dataset, const ModalityManifest& modality, const Runners& runners, const std::string& split,
                     const ExtractOptions& options) {
  json taps = json::array();
  for (const TapSpec& tap : runners.first().taps()) taps.push_back({tap.name, tap.width});
  json key = {{"backbone", runners.first().digest()}, {"dataset", dataset.manifest().digest}, {"modality", modality.name},
              {"split", split}, {"taps", taps}, {"pooling", "mean"}, {"batch", options.batch},
              {"dtype", name_of(options.dtype)}};
  if (options.keep == TapKeep::time) key["time"] = {runners.time_axes, runners.times};
  return key.dump();
}

/// Finds or makes all of one dataset's feature files: what is there and whole is kept, the other parts go through the lanes in one run
/// over all splits and modalities, and each is written when its last row is there, while the lanes go on with the next.
class Extraction {
 public:
  Extraction(const Dataset& dataset, const ExtractOptions& options, const ExtractObserver& observer)
      : dataset_(dataset),
        options_(options),
        observer_(observer),
        writer_(options.out.empty() ? dataset.file().parent_path() / "features" : options.out, options.force) {}

  ExtractResult run() {
    const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
    const int lanes = options_.threads > 0 ? options_.threads : static_cast<int>(cores);
    runners_ = open_backbones(dataset_, options_, lanes);
    if (options_.keep == TapKeep::time) find_times(dataset_, runners_, lanes);
    describe();
    plan();
    make_parts(lanes);
    for (const auto& [split, range] : dataset_.manifest().splits) describe_split(split);
    result_.digest = write_feature_manifest(writer_.folder(), result_.manifest);
    result_.file = writer_.folder() / "features.json";
    return std::move(result_);
  }

 private:
  const ModalityManifest& modality(std::size_t m) const { return dataset_.manifest().modalities[m]; }
  std::string key(std::size_t m, const std::string& split) const {
    return key_text(dataset_, modality(m), runners_[m], split, options_);
  }

  void describe() {
    const DatasetManifest& from = dataset_.manifest();
    DatasetSpec& spec = result_.manifest.spec;
    spec.name = from.name;
    spec.classes = from.classes;
    spec.class_names = from.class_names;
    result_.manifest.dataset_digest = from.digest;
    result_.manifest.source = named_from(writer_.folder(), dataset_.file());
    result_.manifest.tap_type = options_.dtype;
    for (std::size_t m = 0; m < from.modalities.size(); ++m) {
      const Backbone& backbone = runners_[m].first();
      spec.modalities.push_back({from.modalities[m].name, backbone.taps(), backbone.classes() > 0});
      result_.manifest.backbones.push_back(
          {{"kind", backbone.kind()}, {"digest", backbone.digest()}, {"file", named_from(writer_.folder(), runners_[m].file)}});
      result_.manifest.times.push_back(runners_[m].times);
    }
  }

  /// What is there, and what an earlier run left of the others.
  void plan() {
    for (const auto& [split, range] : dataset_.manifest().splits) {
      for (std::size_t m = 0; m < runners_.size(); ++m) {
        const std::int64_t rows = range.rows();
        if (const auto tensors = writer_.find(split, modality(m).name, key(m, split), runners_[m].shapes(rows))) {
          keep_logits(m, split, *tensors);
          ++result_.reused;
          continue;
        }
        ExtractPart& part = parts_.emplace_back(ExtractPart{m, split, 0, rows, make_outputs(runners_[m], rows), &runners_[m].instances});
        if (options_.keep == TapKeep::time) part.staged = &runners_[m].staged;
        part.time_axes = runners_[m].time_axes;
        part.begin = writer_.restore_rows(split, modality(m).name, key(m, split), part.outputs);
        result_.resumed_rows += part.begin;
      }
    }
  }

  void make_parts(int lanes) {
    if (parts_.empty()) return;
    ExtractLanes running(dataset_, parts_, lanes, options_.batch);
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      ExtractPart& part = parts_[p];
      const std::string& name = modality(part.modality).name;
      std::int64_t saved = part.begin;
      auto saved_at = std::chrono::steady_clock::now();
      for (;;) {
        const ExtractLanes::State state = running.wait(p, std::chrono::milliseconds(50));
        tell(p, state.done);
        if (state.ready == part.rows) break;
        const auto now = std::chrono::steady_clock::now();
        if (now - saved_at < options_.save_every || state.ready == saved) continue;
        NamedTensors rows;
        for (const auto& [tap, tensor] : part.outputs) rows.emplace_back(tap, tensor.slice(0, saved, state.ready));
        writer_.save_rows(part.split, name, key(part.modality, part.split), saved, as_stored(rows, options_.dtype));
        saved = state.ready;
        saved_at = now;
      }
      const NamedTensors stored = as_stored(part.outputs, options_.dtype);
      writer_.write(part.split, name, key(part.modality, part.split), stored);
      writer_.forget_rows(part.split, name, key(part.modality, part.split));
      keep_logits(part.modality, part.split, stored);
      part.outputs.clear();
      ++result_.made;
    }
  }

  void keep_logits(std::size_t m, const std::string& split, const NamedTensors& tensors) {
    logits_[split].resize(runners_.size());
    if (runners_[m].first().classes() > 0) logits_[split][m] = tensors.back().second;
  }

  /// A row of a modality counts as much as it has numbers.
  void tell(std::size_t current, const std::vector<std::int64_t>& done) const {
    if (!observer_) return;
    ExtractProgress progress{modality(parts_[current].modality).name, parts_[current].split};
    double work = 0, resumed = 0, all = 0;
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      const auto weight = static_cast<double>(modality(parts_[p].modality).row_count());
      progress.done += done[p];
      progress.resumed += parts_[p].begin;
      progress.rows += parts_[p].rows;
      work += weight * static_cast<double>(done[p]);
      resumed += weight * static_cast<double>(parts_[p].begin);
      all += weight * static_cast<double>(parts_[p].rows);
    }
    progress.share = work / all;
    progress.resumed_share = resumed / all;
    observer_(progress);
  }

  void describe_split(const std::string& split) {
    const at::Tensor labels = dataset_.labels(split);
    result_.manifest.spec.rows[split] = labels.size(0);
    const std::string labels_key = json{{"dataset", dataset_.manifest().digest}, {"split", split}}.dump();
    if (!writer_.find(split, "labels", labels_key, {{"labels", {labels.size(0)}}})) {
      writer_.write(split, "labels", labels_key, {{"labels", labels}});
    }
    auto& files = result_.manifest.files[split];
    files.first = writer_.file(split, "labels", labels_key);
    std::vector<std::string> names;
    for (std::size_t m = 0; m < runners_.size(); ++m) {
      names.push_back(modality(m).name);
      files.second.push_back(writer_.file(split, names[m], key(m, split)));
    }
    add_baselines(result_.manifest.baselines, split, names, logits_[split], labels);
    for (std::size_t m = 0; m < runners_.size() && split == "dev"; ++m) {
      const auto& own = result_.manifest.baselines.unimodal;
      if (const auto found = own.find(names[m]); found != own.end()) {
        result_.manifest.backbones[m]["dev_accuracy"] = found->second.at("dev");
      }
    }
  }

  const Dataset& dataset_;
  const ExtractOptions& options_;
  const ExtractObserver& observer_;
  FeatureWriter writer_;
  std::vector<Runners> runners_;
  std::vector<ExtractPart> parts_;  ///< those to make, split by split
  std::map<std::string, std::vector<at::Tensor>> logits_;  ///< split -> per modality, undefined without
  ExtractResult result_;
};

}  // namespace

ExtractResult extract_features(const Dataset& dataset, const ExtractOptions& options, const ExtractObserver& observer) {
  return Extraction(dataset, options, observer).run();
}

}  // namespace fusion
