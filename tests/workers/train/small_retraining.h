#pragma once

#include <algorithm>
#include <string>

#include "base/json_reader.h"
#include "tests/workers/data/small_dataset.h"
#include "workers/data/extract.h"
#include "workers/train/retrain.h"

namespace fusion::testing {

/// Features of the small dataset with its untrained LeNets, and retrainings on them that take a blink. "waves" has time on its last axis.
class SmallRetraining {
 public:
  SmallRetraining() {
    edit_manifest(data.manifest(), [](nlohmann::json& document) { document["modalities"][1]["time_axis"] = -1; });
    data.write_backbones();
    extract();
  }

  void extract(const std::map<std::string, std::filesystem::path>& backbones = {}, TapKeep keep = TapKeep::pooled) {
    ExtractOptions options;
    options.backbones = backbones;
    options.keep = keep;
    options.batch = 5;
    options.threads = 1;
    features = extract_features(Dataset::open(data.manifest()), options);
  }

  static RetrainingOptions options(HeadKind head = HeadKind::linear) {
    RetrainingOptions o;
    o.head = head;
    o.epochs = 3;
    o.width = 8;
    o.batch = 16;
    o.bert_heads = 2;
    o.restart_epochs = 1;
    return o;
  }

  RetrainingJob job(const RetrainingOptions& o, const std::string& folder) const {
    RetrainingJob job;
    job.retraining = RetrainingId{1};
    job.attempt = 1;
    job.architecture = architecture_from_text("[[1,0,0],[0,1,1]]");
    job.dataset_path = features.file.string();
    job.dataset_digest = features.digest;
    job.options = o;
    job.seed = 5;
    job.folder = (data.folder / folder).string();
    return job;
  }

  static std::string digest_of(const RetrainingOutcome& outcome, const std::string& name = "model.safetensors") {
    if (!outcome.score) return outcome.error;
    for (const Artifact& artifact : outcome.score->artifacts) {
      if (artifact.name == name) return artifact.sha256;
    }
    return "no " + name;
  }

  SmallDataset data;
  ExtractResult features;
};

}  // namespace fusion::testing
