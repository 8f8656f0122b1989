#include "workers/train/retrain_artifacts.h"

#include <filesystem>

#include "base/digest.h"
#include "base/files.h"
#include "base/version.h"
#include "model/tensor_io.h"
#include "model/torch_compat.h"

namespace fusion {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

Artifact artifact_of(const fs::path& file) {
  return {file.filename().string(), file.string(), static_cast<std::int64_t>(fs::file_size(file)), sha256_of_file(file)};
}

}  // namespace

json model_document(const RetrainingJob& job, const RetrainInputs& inputs, const RetrainingScore& score,
                    const std::vector<RetrainingEpoch>& epochs) {
  json list = json::array();
  for (const RetrainingEpoch& epoch : epochs) list.push_back(epoch.to_json());
  json document = {{"format", "fusiond-retrained-1"},
                   {"dataset", inputs.spec().name},
                   {"dataset_digest", job.dataset_digest},
                   {"architecture", inputs.spec().describe(job.architecture)},
                   {"options", job.options.to_json()},
                   {"seed", job.seed},
                   {"classes", inputs.spec().classes},
                   {"class_names", inputs.spec().class_names},
                   {"modalities", inputs.description()},
                   {"lineage", job.lineage},
                   {"code_version", kCodeVersion},
                   {"torch_version", compat::kTorchVersion},
                   {"scores",
                    {{"dev_score", score.dev_score},
                     {"best_epoch", score.best_epoch},
                     {"metric", name_of(job.options.metric)},
                     {"parameters", score.parameters},
                     {"trained_parameters", score.trained_parameters}}}};
  if (score.test_score) document["scores"]["test_score"] = *score.test_score;
  if (!epochs.empty()) document["epochs"] = list;
  if (!score.evaluation.empty()) document["evaluation"] = score.evaluation;
  return document;
}

std::vector<Artifact> write_artifacts(const RetrainedModel& model, const RetrainingJob& job, json document, const RetrainContext& context) {
  const fs::path folder = job.folder;
  json lasting = document;  // without what a clock says: the bytes must not depend on it
  lasting.erase("epochs");
  lasting.erase("evaluation");
  write_tensors(folder / "model.safetensors", model.tensors(), {{"format", "fusiond-retrained-1"}, {"model", lasting.dump()}});
  std::vector<Artifact> artifacts{artifact_of(folder / "model.safetensors")};
  if (context.export_model && model.has_backbones()) {
    context.export_model(model, document, folder / context.export_name);
    artifacts.push_back(artifact_of(folder / context.export_name));
  }
  json files = json::object();
  for (const Artifact& artifact : artifacts) files[artifact.name] = {{"bytes", artifact.bytes}, {"sha256", artifact.sha256}};
  document["files"] = files;
  write_atomically(folder / "architecture.json", document.dump(2) + "\n");
  artifacts.push_back(artifact_of(folder / "architecture.json"));
  return artifacts;
}

}  // namespace fusion
