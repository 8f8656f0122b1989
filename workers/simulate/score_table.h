#pragma once

#include <string>
#include <unordered_map>

#include "space/dataset_spec.h"
#include "workers/simulate/objective.h"

namespace fusion {

/// The scores of a study that was run, best an exhaustive one: what training each architecture gave, read once from the database.
///
/// Trials that were completed and not pruned; of an architecture's replicas the first. The scores are as they were measured, so there is
/// no noise: every seed gets the same. A study that trains as many epochs as the table's gets its learning curves too, any other one
/// rising ones (`rising_curve`).
class ScoreTable final : public SimulatedObjective {
 public:
  struct Entry {
    double dev_score = 0;
    std::optional<double> test_score;
    std::int64_t parameters = 0;
    std::vector<double> curve;  ///< dev score after each epoch; empty where one is missing
  };

  /// Reads the database, also beside a running daemon; nothing is written. Without `study` the only one that has scores. Throws StoreError
  /// for a file that is no database of ours, ConfigError where the study is not there, has no scores, or is one of several; `option` is the
  /// command line's way to choose one.
  static ScoreTable open(const std::string& file, std::optional<StudyId> study, const std::string& option);

  std::optional<double> truth(const Architecture& architecture) const override;
  std::optional<double> score(const Architecture& architecture, std::uint64_t seed) const override;
  std::vector<double> curve(const Architecture& architecture, std::uint64_t seed, int epochs) const override;
  std::optional<double> test_score(const Architecture& architecture, std::uint64_t seed) const override;
  std::int64_t parameters(const Architecture& architecture) const override;
  std::string name() const override { return file_ + ", study " + to_string(study_); }

  const Entry* find(const Architecture& architecture) const;
  /// By canonical text (space/architecture.h).
  const std::unordered_map<std::string, Entry>& entries() const { return entries_; }
  /// Of the features that the scores were measured on.
  const DatasetSpec& dataset() const { return dataset_; }

 private:
  ScoreTable() = default;

  std::string file_;
  StudyId study_;
  DatasetSpec dataset_;
  std::unordered_map<std::string, Entry> entries_;
};

}  // namespace fusion
