#include "tools/study_document.h"

#include "search/strategy.h"
#include "space/feature_manifest.h"
#include "tools/daemon_config.h"

namespace fusion {

namespace {

/// What the training asks of the dataset.
void check_demands(const StudySpec& spec, const DatasetSpec& dataset, JsonReader& reader) {
  if (spec.training.multitask) {
    for (const ModalitySpec& modality : dataset.modalities) {
      if (!modality.has_logits) {
        reader.fail("training", "/multitask needs the logits of every backbone; the features of \"" + modality.name + "\" have none");
      }
    }
  }
  const auto test = dataset.rows.find("test");
  if (spec.training.evaluate_test && (test == dataset.rows.end() || test->second == 0)) {
    reader.fail("training", "/evaluate_test needs a test split; the dataset has none");
  }
}

std::optional<DatasetSpec> read_dataset(const StudySpec& spec, const std::vector<std::filesystem::path>& roots,
                                        JsonReader& reader, std::string& manifest) {
  if (spec.dataset.empty()) return std::nullopt;
  try {
    manifest = feature_manifest_path(resolve_below(roots, spec.dataset)).string();
    return read_feature_manifest(manifest);
  } catch (const ConfigError& error) {
    for (const std::string& problem : error.problems()) reader.fail("dataset", problem);
  } catch (const Error& error) {
    reader.fail("dataset", error.what());
  }
  return std::nullopt;
}

}  // namespace

nlohmann::json ParsedStudy::summary() const {
  nlohmann::json trials = nullptr;
  if (total) trials = *total;
  return {{"valid", true}, {"name", spec.name}, {"count", count}, {"trials", trials}, {"space", spec.space}, {"dataset", dataset.name},
          {"dataset_digest", dataset.digest}};
}

ParsedStudy parse_study(const nlohmann::json& document, const std::string& source,
                        const std::vector<std::filesystem::path>& roots) {
  JsonProblems problems;
  JsonReader reader(document, source, problems);
  ParsedStudy parsed;
  parsed.spec = StudySpec::read(reader);
  const auto dataset = read_dataset(parsed.spec, roots, reader, parsed.manifest);
  if (dataset) {
    parsed.dataset = *dataset;
    check_demands(parsed.spec, *dataset, reader);
    JsonReader space_reader(parsed.spec.space, source, problems, "/space");
    const std::size_t before = problems.list().size();
    const SearchSpace space = SearchSpace::read(space_reader, *dataset);
    if (problems.list().size() == before && parsed.spec.strategy.is_object() && !parsed.spec.strategy.empty()) {
      JsonReader strategy_reader(parsed.spec.strategy, source, problems, "/strategy");
      const auto strategy = make_strategy(strategy_reader, space, parsed.spec.seed);
      if (strategy) parsed.total = strategy->total();
    }
    parsed.count = space.count();
    parsed.spec.space = space.to_json();
  }
  problems.throw_if_any();
  return parsed;
}

}  // namespace fusion
