#include "tests/end_to_end/found_trial.h"

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json_reader.h"
#include "store/store.h"

namespace fusion::testing {

void put_a_completed_trial(const std::filesystem::path& folder) {
  const auto manifest = folder / "features/features.json";
  const nlohmann::json document = nlohmann::json::parse(read_text(manifest));
  JsonProblems problems;
  JsonReader reader(document, "features.json", problems);
  const DatasetSpec dataset = DatasetSpec::read(reader);
  SystemClock clock;
  Store store = Store::open((folder / "fusion.db").string(), clock);
  StudySpec spec;
  spec.name = "found";
  spec.dataset = manifest.string();
  spec.strategy = {{"name", "random"}, {"trials", 1}};
  const StudyId study = store.create_study(spec, dataset, std::filesystem::weakly_canonical(manifest).string());
  NewTrial trial;
  trial.architecture.steps.push_back({{0, 0}, FusionOp::concat_fc, Activation::relu});
  trial.seed = 4711;
  const TrialId id = store.add_trials(study, std::vector{trial}).at(0);
  store.lease(id, {});
  TrialOutcome outcome;
  outcome.trial = id;
  outcome.attempt = 1;
  outcome.score.emplace();
  outcome.score->dev_score = 0.75;
  store.finish(outcome);
  store.set_study_state(study, StudyState::completed);
}

std::int64_t FoundTrialTest::retrain(const std::vector<std::string>& options) {
  std::vector<std::string> arguments{"retrain", "--trial", "1"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return system.ctl_json(arguments)["retraining"]["id"];
}

std::string FoundTrialTest::state(std::int64_t retraining) {
  return system.sql("select state from retrainings where id = " + std::to_string(retraining))[0][0];
}

void FoundTrialTest::wait_for_completion(std::int64_t retraining, std::chrono::seconds limit) {
  std::string now;  // read once per turn: between two reads an attempt may be given back and leased again
  const auto ended = [&] { return (now = state(retraining)) != "queued" && now != "leased"; };
  system.wait_until(ended, limit);
  EXPECT_EQ(now, "completed") << system.daemon().err();
}

void FoundTrialTest::wait_for_epoch(std::int64_t retraining, int epoch) {
  const std::string last = "select coalesce(max(epoch), 0) from retraining_epochs where retraining_id = " + std::to_string(retraining);
  system.wait_until([&] { return system.sql(last)[0][0] >= epoch; });
}

}  // namespace fusion::testing
