#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/json_reader.h"
#include "store/database.h"
#include "store/database_lock.h"
#include "store/log_keeper.h"
#include "store/statement.h"
#include "store/store.h"
#include "store/transaction.h"

/// What the files that implement Store share; nobody else includes it.
namespace fusion {

/// Reads a stored spec back. It was checked when it was submitted, so a problem means that the file was edited by hand.
template <typename Spec>
Spec spec_from_text(const std::string& text, const std::string& where) {
  try {
    const nlohmann::json document = parse_json(text, where);
    JsonProblems problems;
    JsonReader reader(document, where, problems);
    Spec spec = Spec::read(reader);
    problems.throw_if_any();
    return spec;
  } catch (const ConfigError& error) {
    throw StoreError(error.what());
  }
}

/// What finish() has to know of a trial before it decides.
struct CurrentTrial {
  StudyId study;
  std::int64_t ask_index = 0;
  TrialState state = TrialState::queued;
  int attempt = 0;
  int failures = 0, failed = 0, oom = 0, preempted = 0, lost = 0, deaths = 0;
  bool alone = false;
  RetryBudget retries;
};

struct Store::Impl {
  /// At a clean end: how long to wait for readers before the log is left beside the file (which is harmless).
  static constexpr std::int64_t kCloseBusyMs = 1000;

  Impl(const std::string& path, const Clock& clock_, LogLimits limits)
      : clock(&clock_), lock(lock_for(path)), database(path, Database::Access::create), statements(database), log(database, limits) {}
  ~Impl() {
    if (!log.untrusted()) database.checkpoint(kCloseBusyMs);
  }

  static DatabaseLock lock_for(const std::string& path);
  std::int64_t set_up();

  /// Runs `work` wholly or not at all: a transaction, a savepoint inside an inner group; in the outermost group all of it is undone if it
  /// throws.
  template <typename Work>
  auto atomically(Work work);
  template <typename Work>
  auto inside_outermost(Work& work);
  void require_open_group();

  std::optional<CurrentTrial> current(TrialId trial);
  std::optional<Outcome> ended_as(TrialId trial, int attempt, bool& exists);
  /// Whether an attempt was begun by a worker of another name; false for an empty name, and for an attempt that never began.
  bool was_of_another(TrialId trial, int attempt, std::string_view worker);
  bool was_of_another(RetrainingId retraining, int attempt, std::string_view worker);
  void require_next(StudyId study, std::span<const NewTrial> trials);
  std::int64_t next_told_index(StudyId study);
  void end_attempt(const TrialOutcome& outcome);
  void recount(TrialId trial);
  void cancel_open_attempt(TrialId trial, const std::string& why);
  void complete(const TrialOutcome& outcome, std::int64_t told_index);
  void end_trial(const CurrentTrial& now, TrialId trial, std::optional<std::int64_t> told_index, const std::optional<std::string>& error);
  FinishResult finish(const TrialOutcome& outcome, bool worker_died, std::string_view claimed_by);
  void finish_scored(const TrialOutcome& outcome, const CurrentTrial& trial, bool late, FinishResult& result);
  void finish_otherwise(TrialOutcome outcome, CurrentTrial trial, bool worker_died, FinishResult& result);
  bool attempt_was_alone(const TrialOutcome& outcome);
  std::optional<std::string> failing_since(StudyId study, UnixMs since, const PauseOptions& limit);
  void note_late(const TrialOutcome& outcome, StudyId study, bool known_trial, const std::string& text);
  void add_event(const Event& event);
  void cancel_trials(StudyId study);
  StudyId create_study(const StudySpec& spec, const DatasetSpec& dataset, const std::string& dataset_path);
  void inherit(const Lineage& fork, StudyId study);

  RetrainingFinish finish(const RetrainingOutcome& outcome, std::string_view claimed_by);
  void complete(const RetrainingOutcome& outcome);
  void end_attempt(const RetrainingOutcome& outcome);
  RetrainingChange change(RetrainingId id, RetrainingState to);

  const Clock* clock;
  DatabaseLock lock;
  Database database;
  StatementCache statements;
  LogKeeper log;
  std::vector<Transaction> groups;  ///< open groups, outermost first
  std::string lost_cause;           ///< the error with which SQLite undid the open group by itself, or that a call in the outermost threw
  bool spoiled = false;             ///< a call in the outermost group threw: what it had done stands until the group is undone
};

template <typename Work>
auto Store::Impl::inside_outermost(Work& work) {
  try {
    return work();
  } catch (const std::exception& error) {
    spoiled = true;
    lost_cause = error.what();
    throw;
  }
}

template <typename Work>
auto Store::Impl::atomically(Work work) {
  require_open_group();
  if (groups.size() == 1) return inside_outermost(work);
  struct Tend {
    Impl& impl;
    ~Tend() {
      if (impl.groups.empty()) impl.log.tend();
    }
  } tend{*this};
  try {
    Transaction transaction(database, groups.empty() ? Transaction::Kind::write : Transaction::Kind::savepoint);
    if constexpr (std::is_void_v<decltype(work())>) {
      work();
      transaction.commit();
    } else {
      auto result = work();
      transaction.commit();
      return result;
    }
  } catch (const StoreError& error) {
    if (!groups.empty() && !database.in_transaction()) lost_cause = error.what();
    throw;
  }
}

}  // namespace fusion
