#include "workers/data/extract.h"

#include <ATen/ops/empty.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "model/backbone.h"
#include "model/device.h"

namespace fusion {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

/// One modality's backbone, once per thread.
struct Runners {
  fs::path file;
  std::vector<std::unique_ptr<Backbone>> instances;
  const Backbone& first() const { return *instances.front(); }
};

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
NamedTensors make_outputs(const Backbone& backbone, std::int64_t rows) {
  NamedTensors outputs;
  const auto options = at::TensorOptions().dtype(c10::kFloat);
  for (const TapSpec& tap : backbone.taps()) outputs.emplace_back(tap.name, at::empty({rows, tap.width}, options));
  if (backbone.classes() > 0) outputs.emplace_back("logits", at::empty({rows, backbone.classes()}, options));
  return outputs;
}

/// Runs one modality over one split: threads take batches in turn and write each to its own rows.
class SplitRun {
 public:
  SplitRun(const Dataset& dataset, std::size_t modality, std::string split, std::int64_t batch)
      : dataset_(dataset), modality_(modality), split_(std::move(split)), batch_(batch), rows_(dataset.split(split_).rows()) {}

  NamedTensors run(const Runners& runners, const std::function<void(std::int64_t)>& told) {
    outputs_ = make_outputs(runners.first(), rows_);
    std::vector<std::thread> threads;
    std::atomic<std::size_t> running{runners.instances.size()};
    for (const auto& backbone : runners.instances) {
      const Backbone* const own = backbone.get();
      threads.emplace_back([this, own, &running] {
        try {
          work(*own);
        } catch (...) {
          const std::lock_guard lock(mutex_);
          failure_ = std::current_exception();
          next_ = rows_;
        }
        --running;
      });
    }
    while (running > 0) {
      told(done_);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    for (std::thread& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    told(rows_);
    return std::move(outputs_);
  }

 private:
  void work(const Backbone& backbone) {
    prepare_training_thread();
    for (;;) {
      const std::int64_t begin = next_.fetch_add(batch_);
      if (begin >= rows_) return;
      const std::int64_t end = std::min(rows_, begin + batch_);
      const BackboneOutput out = backbone.forward(dataset_.batch(modality_, split_, begin, end));
      for (std::size_t i = 0; i < out.taps.size(); ++i) outputs_[i].second.slice(0, begin, end).copy_(out.taps[i]);
      if (out.logits.defined()) outputs_.back().second.slice(0, begin, end).copy_(out.logits);
      done_ += end - begin;
    }
  }

  const Dataset& dataset_;
  std::size_t modality_;
  std::string split_;
  std::int64_t batch_, rows_;
  NamedTensors outputs_;
  std::atomic<std::int64_t> next_{0}, done_{0};
  std::mutex mutex_;
  std::exception_ptr failure_;
};

/// What made one file: equal text, equal content.
std::string key_text(const Dataset& dataset, const ModalityManifest& modality, const Backbone& backbone, const std::string& split,
                     const ExtractOptions& options) {
  json taps = json::array();
  for (const TapSpec& tap : backbone.taps()) taps.push_back({tap.name, tap.width});
  return json{{"backbone", backbone.digest()}, {"dataset", dataset.manifest().digest}, {"modality", modality.name},
              {"split", split}, {"taps", taps}, {"pooling", "mean"}, {"batch", options.batch},
              {"dtype", name_of(options.dtype)}}
      .dump();
}

/// Finds or makes all of one dataset's feature files.
class Extraction {
 public:
  Extraction(const Dataset& dataset, const ExtractOptions& options, const ExtractObserver& observer)
      : dataset_(dataset),
        options_(options),
        observer_(observer),
        writer_(options.out.empty() ? dataset.file().parent_path() / "features" : options.out, options.force) {}

  ExtractResult run() {
    const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
    runners_ = open_backbones(dataset_, options_, options_.threads > 0 ? options_.threads : static_cast<int>(cores));
    describe();
    for (const auto& [split, range] : dataset_.manifest().splits) extract_split(split);
    result_.digest = write_feature_manifest(writer_.folder(), result_.manifest);
    result_.file = writer_.folder() / "features.json";
    return std::move(result_);
  }

 private:
  void describe() {
    const DatasetManifest& from = dataset_.manifest();
    DatasetSpec& spec = result_.manifest.spec;
    spec.name = from.name;
    spec.classes = from.classes;
    spec.class_names = from.class_names;
    result_.manifest.dataset_digest = from.digest;
    result_.manifest.tap_type = options_.dtype;
    for (std::size_t m = 0; m < from.modalities.size(); ++m) {
      const Backbone& backbone = runners_[m].first();
      spec.modalities.push_back({from.modalities[m].name, backbone.taps(), backbone.classes() > 0});
      result_.manifest.backbones.push_back({{"kind", backbone.kind()}, {"digest", backbone.digest()}});
    }
  }

  void extract_split(const std::string& split) {
    const at::Tensor labels = dataset_.labels(split);
    result_.manifest.spec.rows[split] = labels.size(0);
    const std::string labels_key = json{{"dataset", dataset_.manifest().digest}, {"split", split}}.dump();
    if (!writer_.find(split, "labels", labels_key, {{"labels", {labels.size(0)}}})) {
      writer_.write(split, "labels", labels_key, {{"labels", labels}});
    }
    auto& files = result_.manifest.files[split];
    files.first = writer_.file(split, "labels", labels_key);
    std::vector<std::string> names;
    std::vector<at::Tensor> logits;
    for (std::size_t m = 0; m < runners_.size(); ++m) {
      names.push_back(dataset_.manifest().modalities[m].name);
      const NamedTensors tensors = extract_modality(m, split, files.second);
      logits.push_back(runners_[m].first().classes() > 0 ? tensors.back().second : at::Tensor());
    }
    add_baselines(result_.manifest.baselines, split, names, logits, labels);
    for (std::size_t m = 0; m < runners_.size() && split == "dev"; ++m) {
      const auto& own = result_.manifest.baselines.unimodal;
      if (const auto found = own.find(names[m]); found != own.end()) {
        result_.manifest.backbones[m]["dev_accuracy"] = found->second.at("dev");
      }
    }
  }

  NamedTensors extract_modality(std::size_t m, const std::string& split, std::vector<FeatureFile>& files) {
    const ModalityManifest& modality = dataset_.manifest().modalities[m];
    const Backbone& backbone = runners_[m].first();
    const std::int64_t rows = dataset_.split(split).rows();
    const std::string key = key_text(dataset_, modality, backbone, split, options_);
    std::vector<std::pair<std::string, std::vector<std::int64_t>>> expected;
    for (const TapSpec& tap : backbone.taps()) expected.push_back({tap.name, {rows, tap.width}});
    if (backbone.classes() > 0) expected.push_back({"logits", {rows, backbone.classes()}});
    auto tensors = writer_.find(split, modality.name, key, expected);
    if (tensors) {
      ++result_.reused;
    } else {
      const auto told = [&](std::int64_t done) {
        if (observer_) observer_(modality.name, split, done, rows);
      };
      tensors = SplitRun(dataset_, m, split, options_.batch).run(runners_[m], told);
      tensors = as_stored(*tensors, options_.dtype);
      writer_.write(split, modality.name, key, *tensors);
      ++result_.made;
    }
    files.push_back(writer_.file(split, modality.name, key));
    return *tensors;
  }

  const Dataset& dataset_;
  const ExtractOptions& options_;
  const ExtractObserver& observer_;
  FeatureWriter writer_;
  std::vector<Runners> runners_;
  ExtractResult result_;
};

}  // namespace

ExtractResult extract_features(const Dataset& dataset, const ExtractOptions& options, const ExtractObserver& observer) {
  return Extraction(dataset, options, observer).run();
}

}  // namespace fusion
