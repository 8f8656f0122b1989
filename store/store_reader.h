#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/id.h"
#include "space/retraining.h"
#include "space/trial.h"
#include "store/right_of_way.h"
#include "store/store.h"

namespace fusion {

struct TrialQuery {
  std::optional<TrialState> state;
  enum class Order { asked, ended, best } order = Order::asked;
  std::int64_t limit = 100, offset = 0;
};

struct RetrainingQuery {
  std::optional<RetrainingState> state;
  std::optional<HeadKind> head;
  std::optional<StudyId> study;
  std::optional<TrialId> trial;
  bool best = false;  ///< completed ones by dev_score; else all, the latest first
  std::int64_t limit = 100, offset = 0;
};

/// Everything that a study's search did, of one moment: what a replay needs.
struct StudyHistory {
  StudyRecord study;
  std::vector<Trial> trials;  ///< by ask_index
  std::vector<FitRow> fits;   ///< by fit_index
};

/// A read-only connection: queries of people and of the API, which never delay the writer. Opens an existing database only.
/// One thread at a time; open one per reader thread. Values come back as JSON in the vocabulary of docs/protocol.md, but for histories.
class StoreReader {
 public:
  /// Works beside a running daemon, and without one. Throws StoreError (missing, newer, not a database).
  static StoreReader open(const std::string& path);
  StoreReader(StoreReader&&) noexcept;
  StoreReader& operator=(StoreReader&&) noexcept;
  ~StoreReader();

  /// Queries give way to the store's thread from now on (store/right_of_way.h); `way` outlives this.
  void give_way(const RightOfWay* way);

  nlohmann::json studies() const;                             ///< [study summary]
  std::optional<nlohmann::json> study(StudyId id) const;      ///< summary + spec + dataset + last fit + counts per state
  nlohmann::json trials(StudyId study, const TrialQuery& query) const;
  std::optional<nlohmann::json> trial(TrialId id) const;      ///< with attempts and epochs
  nlohmann::json best(StudyId study, std::int64_t top) const; ///< completed trials by dev_score, ties by ask_index; none that was pruned
  nlohmann::json fits(StudyId study) const;
  nlohmann::json retrainings(const RetrainingQuery& query) const;  ///< [retraining summary]
  std::optional<nlohmann::json> retraining(RetrainingId id) const;  ///< with options, lineage, evaluation, attempts, epochs, artifacts
  nlohmann::json workers() const;
  nlohmann::json events(std::optional<StudyId> study, std::int64_t after_id, std::int64_t limit) const;

  std::vector<StudyId> study_ids() const;
  /// Studies, trials and fits as they were at one moment; nullopt for a study that is unknown.
  std::optional<StudyHistory> history(StudyId id) const;

  /// One read-only statement of the user's: {"columns": [...], "rows": [[...]], "truncated": bool}. Throws StoreError with
  /// SQLite's words for bad SQL or one that writes, and when the deadline passes. Gives way while it runs, if told to.
  nlohmann::json query(const std::string& sql, std::int64_t row_limit, std::chrono::milliseconds deadline) const;

 private:
  struct Impl;
  explicit StoreReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fusion
