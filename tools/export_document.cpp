#include "tools/export_document.h"

#include "base/version.h"
#include "space/dataset_spec.h"

namespace fusion {

using nlohmann::json;

std::optional<json> export_document(const StoreReader& reader, StudyId id, std::int64_t top) {
  const auto study = reader.study(id);
  if (!study) return std::nullopt;
  const json& spec = study->at("spec");
  const json& dataset_json = study->at("dataset_spec");
  JsonProblems problems;
  JsonReader dataset_reader(dataset_json, "study " + to_string(id), problems);
  const DatasetSpec dataset = DatasetSpec::read(dataset_reader);
  problems.throw_if_any();

  json architectures = json::array();
  for (const json& trial : reader.best(id, top)) {
    const Architecture architecture = architecture_from_triplets(trial.at("architecture"));
    json entry = dataset.describe(architecture);
    entry["rank"] = architectures.size() + 1;
    for (const char* key : {"dev_score", "test_score", "dev_accuracy", "dev_weighted_f1", "dev_macro_f1", "best_epoch", "train_loss",
                            "train_s", "parameters", "seed", "replica"}) {
      entry[key] = trial.value(key, json());
    }
    entry["trial"] = trial.at("id");
    architectures.push_back(std::move(entry));
  }
  return json{{"format", "fusiond-export-1"},
              {"code_version", kCodeVersion},
              {"study",
               {{"id", id.value},
                {"name", study->at("name")},
                {"state", study->at("state")},
                {"seed", study->at("seed")},
                {"strategy", spec.at("strategy")},
                {"space", spec.at("space")},
                {"dataset", study->at("dataset")},
                {"dataset_file", spec.at("dataset")}}},
              {"dataset", dataset_json},
              {"training", spec.at("training")},
              {"architectures", architectures}};
}

}  // namespace fusion
