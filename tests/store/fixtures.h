#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "base/clock.h"
#include "space/search_space.h"
#include "store/store.h"
#include "tests/space/spaces.h"

namespace fusion::testing {

inline StudySpec study_spec(const std::string& name = "demo", int retries = 2) {
  StudySpec spec;
  spec.name = name;
  spec.dataset = "avmnist/dataset.json";
  spec.strategy = {{"name", "random"}, {"trials", 100}};
  spec.seed = 18'446'744'073'709'551'615u;  // the largest there is
  spec.retries = RetryBudget::of(retries);
  return spec;
}

inline StudyId add_study(Store& store, const std::string& name = "demo", int retries = 2) {
  return store.create_study(study_spec(name, retries), avmnist_spec(), "/data/avmnist/features/features.json");
}

/// The n-th architecture of AV-MNIST's space, as the n-th proposal.
inline NewTrial new_trial(std::int64_t n) {
  static const SearchSpace space = SearchSpace::whole(avmnist_spec(), 4);
  NewTrial trial;
  trial.ask_index = n;
  trial.architecture = space.at(static_cast<std::uint64_t>(n));
  trial.seed = trial_seed(7, trial.architecture);
  trial.facts = {{"level", n % 3}};
  return trial;
}

inline std::vector<TrialId> add_trials(Store& store, StudyId study, std::int64_t count, std::int64_t first = 0) {
  std::vector<NewTrial> trials;
  for (std::int64_t n = first; n < first + count; ++n) trials.push_back(new_trial(n));
  return store.add_trials(study, trials);
}

inline Score score_of(double dev_score) {
  Score score;
  score.dev_score = dev_score;
  score.best_epoch = 2;
  score.dev_accuracy = dev_score;
  score.dev_weighted_f1 = dev_score / 2;
  score.dev_macro_f1 = dev_score / 4;
  score.train_loss = 1.25;
  score.train_s = 3.5;
  score.parameters = 1234;
  return score;
}

inline TrialOutcome completed(TrialId trial, int attempt, double dev_score) {
  return {trial, attempt, Outcome::completed, score_of(dev_score), "", "autograd", "cpu", "0.1.0", "1.13.0"};
}

inline TrialOutcome ended(TrialId trial, int attempt, Outcome outcome, const std::string& error = "") {
  if (outcome == Outcome::completed) return completed(trial, attempt, 0.5);
  if (outcome == Outcome::pruned) return {trial, attempt, outcome, score_of(0.25), error, "autograd", "cpu", "0.1.0", "1.13.0"};
  return {trial, attempt, outcome, std::nullopt, error, "autograd", "cpu", "0.1.0", "1.13.0"};
}

inline NewRetraining new_retraining(StudyId study = {}, TrialId trial = {}, HeadKind head = HeadKind::linear) {
  NewRetraining retraining;
  retraining.study = study;
  retraining.trial = trial;
  retraining.lineage = {{"study", {{"id", study.value}, {"name", "first"}}}, {"trial", {{"id", trial.value}, {"dev_score", 0.65}}}};
  retraining.architecture = new_trial(3).architecture;
  retraining.dataset = avmnist_spec();
  retraining.dataset_path = "/data/avmnist/features/features.json";
  retraining.options.head = head;
  retraining.options.epochs = 3;
  retraining.seed = (std::uint64_t{1} << 53) - 1;
  retraining.retries = 1;
  retraining.artifacts = "/data/artifacts";
  return retraining;
}

inline RetrainingEpoch retraining_epoch(int epoch) {
  return {epoch, epoch == 1 ? 1 : 2, 2.0 / epoch, 2.5 / epoch, 0.5 + 0.05 * epoch, 1e-3 / epoch, 12.5, 4000};
}

inline RetrainingOutcome retrained(RetrainingId id, int attempt, double dev_score) {
  RetrainingOutcome outcome;
  outcome.retraining = id;
  outcome.attempt = attempt;
  outcome.score.emplace();
  outcome.score->dev_score = dev_score;
  outcome.score->best_epoch = 2;
  outcome.score->test_score = dev_score - 0.01;
  outcome.score->train_loss = 0.25;
  outcome.score->train_s = 60.5;
  outcome.score->parameters = 123456;
  outcome.score->trained_parameters = 23456;
  outcome.score->batch = 32;
  outcome.score->evaluation = {{"dev", {{"accuracy", dev_score}, {"confusion", {{1, 0}, {0, 1}}}}},
                               {"test", {{"accuracy", dev_score - 0.01}, {"macro_f1", 0.5}}},
                               {"device", "cpu"}};
  outcome.score->artifacts = {{"model.pt", "/data/artifacts/r/model.pt", 4096, std::string(64, 'a')},
                              {"architecture.json", "/data/artifacts/r/architecture.json", 512, std::string(64, 'b')}};
  outcome.device = "cpu";
  outcome.code_version = "0.1.0";
  outcome.torch_version = "1.13.0";
  return outcome;
}

inline RetrainingOutcome retraining_ended(RetrainingId id, int attempt, Outcome how, const std::string& error = "it went wrong") {
  if (how == Outcome::completed) return retrained(id, attempt, 0.75);
  return {id, attempt, how, std::nullopt, error, "cpu", "0.1.0", "1.13.0"};
}

/// Something of everything: two studies, trials in every state, epochs, fits, a late result, workers here and gone,
/// retrainings in most states.
void fill_with_samples(Store& store, ManualClock& clock);

/// The repository: FUSION_SOURCE_DIR, else the current folder.
inline std::filesystem::path source_folder() {
  const char* folder = std::getenv("FUSION_SOURCE_DIR");
  return folder != nullptr ? folder : std::filesystem::current_path();
}

}  // namespace fusion::testing
