#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/id.h"
#include "space/dataset_spec.h"
#include "space/study.h"
#include "space/trial.h"
#include "store/log_keeper.h"
#include "store/retraining_records.h"

namespace fusion {

/// Where a fork began.
struct Lineage {
  StudyId from;
  std::int64_t at = 0;        ///< so many trials of that study, the first in the order of told_index, are the fork's first ones
  std::int64_t observed = 0;  ///< so many of these its strategy knows from the start; 0: it retraces the study that was forked
  bool operator==(const Lineage&) const = default;
};

/// A study as the store knows it.
struct StudyRecord {
  StudyId id;
  StudySpec spec;
  DatasetSpec dataset;
  std::string dataset_path;  ///< absolute, as resolved when the study was submitted: the feature manifest
  StudyState state = StudyState::running;
  std::string error;         ///< why it is failed or paused by the daemon; else empty
  UnixMs created = 0, updated = 0;
  std::optional<Lineage> fork;
};

struct NewTrial {
  std::int64_t ask_index = 0;
  Architecture architecture;
  int replica = 0;
  std::uint64_t seed = 0;
  nlohmann::json facts = nlohmann::json::object();
};

/// A row of surrogate_fits; `study` says whose.
struct FitRow {
  std::int64_t fit_index = 0;
  std::string surrogate;
  std::int64_t observations = 0;
  double loss = 0;
  std::optional<double> rank_correlation, mean_abs_error;
  double seconds = 0;
  nlohmann::json details = nlohmann::json::object();
};

/// A dev score that a trial reported after an epoch.
struct EpochScore {
  TrialId trial;
  int epoch = 0;
  double dev_score = 0;
  bool operator==(const EpochScore&) const = default;
};

struct WorkerRecord {
  WorkerId id;
  std::string name, host, device, code_version, torch_version;
  std::int64_t pid = 0;
  int slots = 1;
};

/// What became of an outcome.
struct FinishResult {
  bool accepted = false;   ///< false: too late, or unknown trial or attempt; nothing was changed but a `result_late` event
  TrialState state = TrialState::queued;  ///< of the trial now
  bool requeued = false;   ///< the trial is queued again (preempted, lost, or a failure with retries left)
  std::int64_t told_index = -1;  ///< its place in the order of ends, if it is final by this outcome
  std::int64_t ask_index = 0;
  StudyId study;
  bool alone = false;      ///< of a trial that is queued again: it must be trained alone
};

/// One event for the log of a study: what an operator would want to read later.
struct Event {
  std::int64_t id = 0;
  UnixMs at = 0;
  std::string kind;  ///< "study_submitted", "trial_lost", "worker_joined", "result_late", ...
  StudyId study;
  TrialId trial;
  WorkerId worker;
  std::string text;
  RetrainingId retraining{};
};

/// The one writing connection to the database (WAL, synchronous=FULL, foreign keys on).
///
/// Lives on the store thread. Each public function is atomic by itself: its own transaction when none is open, part of one
/// inside a group of `GroupCommit`. State changes are conditional and say whether they took effect. Throws StoreError with
/// SQLite's words and the file's name; after a throw nothing of that call is stored.
///
/// The one event that the store adds by itself is `result_late`: a result that came too late, dropped or still welcome. All
/// other events are the callers'.
class Store {
 public:
  /// Opens or creates, migrates (append-only list, user_version), takes the advisory lock `<path>.lock` that a second daemon on
  /// the same database is refused by. Throws StoreError: newer schema than this program, not a database, another program's,
  /// locked, unwritable, no such folder; the file is then as it was. `clock` must outlive the store. ":memory:" has no lock and
  /// no WAL. Closing moves the log into the file, so that one file is left.
  static Store open(const std::string& path, const Clock& clock, LogLimits limits = {});
  Store(Store&&) noexcept;
  Store& operator=(Store&&) noexcept;
  ~Store();

  // ---- studies
  /// Throws StoreError with every problem if the specs could not be read back.
  StudyId create_study(const StudySpec& spec, const DatasetSpec& dataset, const std::string& dataset_path);
  std::optional<StudyRecord> study(StudyId id) const;
  std::vector<StudyRecord> studies() const;  ///< by id
  /// True if the state was changed; completed and cancelled are final. Cancelling a study cancels its queued and leased trials.
  bool set_study_state(StudyId id, StudyState state, const std::string& error = "");

  // ---- forks (store/store_forks.cpp)
  /// At how many told trials a study can be forked at most: all of them, up to the first that was cancelled. 0 for an unknown study.
  std::int64_t forkable(StudyId id) const;
  /// A new study with the dataset of `fork.from` and copies of its first `fork.at` told trials: ask_index and told_index are the parent's
  /// told_index, times are the parent's, attempts are marked as inherited. Throws StoreError if it cannot be forked there.
  StudyId fork_study(const Lineage& fork, const StudySpec& spec);

  // ---- trials
  /// Adds proposals, all queued. Returns their ids. Throws StoreError if their ask_indices do not follow those that are there without
  /// a gap (an earlier call failed, and these were made as if it had not: no replay could ask for them), if one is there already (the
  /// same architecture and replica), and for a study that is unknown, completed or cancelled: nothing would ever end them.
  std::vector<TrialId> add_trials(StudyId study, std::span<const NewTrial> trials);
  /// queued -> leased: begins attempt `trial.attempt + 1` and returns its number; nullopt if the trial is not queued. `worker` has
  /// joined before, or is none.
  std::optional<int> lease(TrialId trial, WorkerId worker);
  /// A worker that came back with a trial it still trains: if the trial is queued and `attempt` is the last one begun and ended
  /// lost, that attempt is opened again. True if so. Only for a worker of the name that had the attempt.
  bool readopt(TrialId trial, int attempt, WorkerId worker);
  /// False (and nothing stored) if that epoch of that attempt is there already or the trial or attempt is unknown; where `claimed_by` names a
  /// worker, also if the attempt was never that worker's.
  bool add_epoch(TrialId trial, int attempt, const EpochReport& report, std::string_view claimed_by = {});
  /// What the trials of a study reported after these epochs, a row for each trial and epoch: the last attempt that did.
  std::vector<EpochScore> epoch_scores(StudyId study, std::span<const int> epochs) const;
  /// Ends an attempt. completed and pruned have a score and make the trial completed (marked, if pruned): accepted from any attempt
  /// while the trial is not final; one that is open beside it ends as cancelled. Other outcomes: only from the current attempt of a
  /// leased trial. failed and oom count against the study's `retries`: queued again, or failed. preempted and lost: queued again.
  /// cancelled: cancelled. Throws StoreError for completed and pruned without a dev_score in [0, 1].
  ///
  /// The first oom uses up no retry; the trial is to be trained alone then. `worker_died`, of a lost attempt: the worker died while it had
  /// this trial in training. If the attempt was alone, that is a death (more than the study allows: failed), else a suspicion: the trial
  /// is to be trained alone. Whoever survives a training alone is suspected no more.
  ///
  /// `claimed_by`, where it is not empty: the worker that says so. It is not believed about an attempt that was never its own.
  FinishResult finish(const TrialOutcome& outcome, bool worker_died = false, std::string_view claimed_by = {});
  /// Pauses a running study that fails and fails (StudySpec::pause_on), counted from the last trial completed, or the last resume. Returns
  /// why, a sentence that also stands in the study's `error`; nullopt if there was no reason to.
  std::optional<std::string> pause_if_failing(StudyId study);
  /// On start: every leased trial is queued again, its attempt ended as lost, and workers that never left have left. Returns how
  /// many trials.
  int requeue_leased();
  std::vector<Trial> trials(StudyId study) const;  ///< by ask_index
  std::optional<Trial> trial(TrialId id) const;

  // ---- retrainings (store/store_retrainings.cpp)
  /// Adds a queued one, with a folder of its own below `artifacts` whose name no other retraining of any database has; the folder is not
  /// made. Throws StoreError for a trial or study that is unknown.
  RetrainingRecord create_retraining(const NewRetraining& retraining);
  std::optional<RetrainingRecord> retraining(RetrainingId id) const;
  std::vector<RetrainingRecord> open_retrainings() const;  ///< those that are not final, by id
  /// queued -> leased, as `lease`; nullopt also while an older attempt has not ended (it was paused, told to stop, and resumed).
  std::optional<int> lease_retraining(RetrainingId id, WorkerId worker);
  /// As `readopt`.
  bool readopt_retraining(RetrainingId id, int attempt, WorkerId worker);
  /// False (and nothing stored) if that epoch of that attempt is there already, or the retraining or attempt is unknown. `claimed_by`: as
  /// in `add_epoch`.
  bool add_retraining_epoch(RetrainingId id, int attempt, const RetrainingEpoch& epoch, std::string_view claimed_by = {});
  /// Ends an attempt. completed: from the last attempt that was begun, also if it was thought lost, while the retraining is not final;
  /// one that was paused meanwhile is completed too. An older attempt is never believed: attempts share a folder, and the files there are
  /// not its own any more. Other outcomes: only from an attempt that is open. failed and oom count against `retries`: queued again, or
  /// failed. preempted and lost: queued again. One that was paused stays paused in all these cases. cancelled: cancelled. Throws
  /// StoreError for completed without a score that can be stored. `claimed_by`: as in `finish`.
  RetrainingFinish finish_retraining(const RetrainingOutcome& outcome, std::string_view claimed_by = {});
  /// queued | leased -> paused. An attempt that is open stays so until its worker has given it back.
  RetrainingChange pause_retraining(RetrainingId id);
  /// paused -> queued.
  RetrainingChange resume_retraining(RetrainingId id);
  /// queued | leased | paused -> cancelled; an open attempt ends cancelled.
  RetrainingChange cancel_retraining(RetrainingId id);
  /// On start: open attempts end as lost, what was leased is queued again. Returns how many attempts.
  int requeue_leased_retrainings();

  // ---- the rest
  /// A fit that is there already stays as it is: a strategy that is replayed reports its fits again.
  void add_fit(StudyId study, const FitRow& fit);
  WorkerId join_worker(const WorkerRecord& worker);  ///< a new row for each connection
  void leave_worker(WorkerId worker, const std::string& reason);
  void add_event(const Event& event);  ///< id and at are given by the store

  /// For GroupCommit: one transaction; they nest. In an inner group each call, and the group, is a savepoint. In the outermost none is, for
  /// they cost more than the rest: once a call threw, or SQLite undid everything (disk full), only rollback_group does not throw.
  void begin_group();
  void commit_group();
  void rollback_group() noexcept;

  /// Moves the write-ahead log into the file when it is time (store/log_keeper.h): outside of groups. Calls outside of groups do so themselves.
  void tend_log() noexcept;
  /// A sync of the file failed (LogKeeper): from then on the log is only written.
  bool file_is_untrusted() const;
  std::string path() const;
  /// Readers of this process, who can be asked to pause when they keep the log from that for too long. `gate` outlives the store.
  void ask_readers(ReaderGate* gate);

 private:
  struct Impl;
  explicit Store(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fusion
