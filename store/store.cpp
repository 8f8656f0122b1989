#include "store/store.h"

#include <spdlog/logger.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "store/migrations.h"
#include "store/page_cache.h"
#include "store/records.h"
#include "store/store_impl.h"

namespace fusion {
namespace {

constexpr const char* kMemory = ":memory:";
constexpr std::string_view kStudyColumns =
    "SELECT id, spec, dataset_spec, dataset_path, state, error, created_ms, updated_ms, forked_from, forked_at, observed"
    " FROM studies ";

StudyRecord study_of(const Statement& row, const std::string& path) {
  StudyRecord study;
  study.id = StudyId{row.integer(0)};
  const std::string where = path + ": study " + to_string(study.id);
  study.spec = spec_from_text<StudySpec>(row.text(1), where + ": spec");
  study.dataset = spec_from_text<DatasetSpec>(row.text(2), where + ": dataset_spec");
  study.dataset_path = row.text(3);
  study.state = row.choice<StudyState>(4);
  study.error = row.text(5);
  study.created = row.integer(6);
  study.updated = row.integer(7);
  if (!row.is_null(8)) study.fork = Lineage{StudyId{row.integer(8)}, row.integer(9), row.integer(10)};
  return study;
}

constexpr std::string_view kTrialColumns =
    "SELECT id, study_id, ask_index, told_index, architecture, seed, state, attempts, failures, error, facts, created_ms,"
    " updated_ms, dev_score, best_epoch, dev_accuracy, dev_weighted_f1, dev_macro_f1, test_score, train_loss, train_s,"
    " parameters, pruned, replica, failed, oom, preempted, lost, deaths, alone, inherited_from FROM trials ";

Trial trial_of(const Statement& row) {
  Trial trial;
  trial.id = TrialId{row.integer(0)};
  trial.study = StudyId{row.integer(1)};
  trial.ask_index = row.integer(2);
  trial.told_index = row.is_null(3) ? -1 : row.integer(3);
  trial.architecture = architecture_from_text(row.text(4));
  trial.seed = static_cast<std::uint64_t>(row.integer(5));
  trial.state = row.choice<TrialState>(6);
  trial.attempt = static_cast<int>(row.integer(7));
  trial.failures = static_cast<int>(row.integer(8));
  trial.error = row.text(9);
  trial.facts = row.text(10);
  trial.created = row.integer(11);
  trial.updated = row.integer(12);
  trial.replica = static_cast<int>(row.integer(23));
  trial.failed = static_cast<int>(row.integer(24));
  trial.oom = static_cast<int>(row.integer(25));
  trial.preempted = static_cast<int>(row.integer(26));
  trial.lost = static_cast<int>(row.integer(27));
  trial.deaths = static_cast<int>(row.integer(28));
  trial.alone = row.integer(29) != 0;
  trial.inherited_from = TrialId{row.integer(30)};
  if (row.is_null(13)) return trial;
  Score score;
  score.dev_score = row.number(13);
  score.best_epoch = static_cast<int>(row.integer(14));
  score.dev_accuracy = row.number(15);
  score.dev_weighted_f1 = row.number(16);
  score.dev_macro_f1 = row.number(17);
  score.test_score = row.optional_number(18);
  score.train_loss = row.number(19);
  score.train_s = row.number(20);
  score.parameters = row.integer(21);
  trial.score = score;
  trial.pruned = row.integer(22) != 0;
  return trial;
}

}  // namespace

// ---- rows as values

std::optional<StudyRecord> read_study(StatementCache& statements, StudyId id, const std::string& path) {
  static const std::string sql = std::string(kStudyColumns) + "WHERE id = ?1";
  const auto row = statements.use(sql);
  if (!row->bind(id).step()) return std::nullopt;
  return study_of(*row, path);
}

std::vector<StudyRecord> read_studies(StatementCache& statements, const std::string& path) {
  static const std::string sql = std::string(kStudyColumns) + "ORDER BY id";
  std::vector<StudyRecord> studies;
  const auto row = statements.use(sql);
  while (row->step()) studies.push_back(study_of(*row, path));
  return studies;
}

std::vector<Trial> read_trials(StatementCache& statements, StudyId study) {
  static const std::string sql = std::string(kTrialColumns) + "WHERE study_id = ?1 ORDER BY ask_index";
  std::vector<Trial> trials;
  const auto row = statements.use(sql);
  row->bind(study);
  while (row->step()) trials.push_back(trial_of(*row));
  return trials;
}

std::vector<FitRow> read_fits(StatementCache& statements, StudyId study) {
  std::vector<FitRow> fits;
  const auto row = statements.use(
      "SELECT fit_index, surrogate, observations, loss, rank_correlation, mean_abs_error, seconds, details FROM surrogate_fits"
      " WHERE study_id = ?1 ORDER BY fit_index");
  row->bind(study);
  while (row->step()) {
    fits.push_back({row->integer(0), row->text(1), row->integer(2), row->number(3), row->optional_number(4), row->optional_number(5),
                    row->number(6), nlohmann::json::parse(row->text(7))});
  }
  return fits;
}

// ---- opening

DatabaseLock Store::Impl::lock_for(const std::string& path) {
  if (path == kMemory) return {};
  // A wrong path is the database's to explain, and must leave no lock file behind.
  Database(path, Database::Access::create);
  return DatabaseLock(path);
}

// Returns the schema's version as it was found.
std::int64_t Store::Impl::set_up() {
  // EXTRA is FULL as soon as there is a write-ahead log. Before, while the file is made, it syncs the folder too when the rollback journal is
  // removed: a journal that a power loss brings back would roll the whole database back to nothing.
  database.execute("PRAGMA foreign_keys = ON; PRAGMA cell_size_check = ON; PRAGMA synchronous = EXTRA");
  database.cache_at_most(kWriterCache);
  const std::int64_t found = check_schema(database);  // before the journal mode, which would change the file
  if (database.path() != kMemory) {
    const std::string mode = database.text("PRAGMA journal_mode = WAL");
    if (mode != "wal") {
      throw StoreError(database.path() + ": write-ahead logging was refused (journal mode is " + mode +
                       "); is the file on a network file system, or not writable?");
    }
    // A log that grew while a reader held it is cut to 64 MB after.
    database.execute("PRAGMA journal_size_limit = 67108864");
  }
  migrate(database, clock->unix_ms());
  return found;
}

Store Store::open(const std::string& path, const Clock& clock, LogLimits limits) {
  auto impl = std::make_unique<Impl>(path, clock, limits);
  const std::int64_t found = impl->set_up();
  if (found > 0 && found < newest_schema()) {
    logger("store")->info("database upgraded path={} from_schema={} to_schema={}", path, found, newest_schema());
  }
  return Store(std::move(impl));
}

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;
Store::~Store() = default;

// ---- transactions

// Once SQLite has undone a group, another statement would commit by itself although the group fails as a whole.
void Store::Impl::require_open_group() {
  if (groups.empty() || (!spoiled && database.in_transaction())) return;
  throw StoreError(database.path() + ": the whole group of changes is undone, nothing of it is stored: " + lost_cause);
}

void Store::begin_group() {
  Impl& impl = *impl_;
  impl.require_open_group();
  if (impl.groups.empty()) {
    impl.lost_cause.clear();
    impl.spoiled = false;
  }
  impl.groups.emplace_back(impl.database,
                           impl.groups.empty() ? Transaction::Kind::write : Transaction::Kind::savepoint);
}

void Store::commit_group() {
  Impl& impl = *impl_;
  if (impl.groups.empty()) throw std::logic_error("commit_group without begin_group");
  impl.require_open_group();
  impl.groups.back().commit();
  impl.groups.pop_back();
}

void Store::rollback_group() noexcept {
  if (!impl_->groups.empty()) impl_->groups.pop_back();
}

void Store::tend_log() noexcept { impl_->log.tend(); }
bool Store::file_is_untrusted() const { return impl_->log.untrusted(); }
std::string Store::path() const { return impl_->database.path(); }

void Store::ask_readers(ReaderGate* gate) { impl_->log.ask(gate); }

// ---- studies

StudyId Store::create_study(const StudySpec& spec, const DatasetSpec& dataset, const std::string& dataset_path) {
  return impl_->atomically([&] { return impl_->create_study(spec, dataset, dataset_path); });
}

StudyId Store::Impl::create_study(const StudySpec& spec, const DatasetSpec& dataset, const std::string& dataset_path) {
  const UnixMs now = clock->unix_ms();
  const auto name = spec.strategy.find("name");
  const std::string strategy = name != spec.strategy.end() && name->is_string() ? name->get<std::string>() : "";
  const std::string spec_text = spec.to_json().dump(), dataset_text = dataset.to_json().dump();
  // What cannot be read back is refused now, not at the next start.
  spec_from_text<StudySpec>(spec_text, "study \"" + spec.name + "\": spec");
  spec_from_text<DatasetSpec>(dataset_text, "study \"" + spec.name + "\": dataset_spec");
  statements
      .use("INSERT INTO studies (name, state, priority, retries, seed, strategy, dataset, dataset_digest, dataset_path,"
           " spec, dataset_spec, created_ms, updated_ms, retries_failed, retries_oom, retries_lost)"
           " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?13, ?14, ?15)")
      ->bind(spec.name, StudyState::running, spec.priority, spec.retries.failures, std::to_string(spec.seed), strategy,
             dataset.name, dataset.digest, dataset_path, spec_text, dataset_text, now, spec.retries.failed,
             spec.retries.oom, spec.retries.lost)
      .run();
  return StudyId{database.last_insert_id()};
}

std::optional<StudyRecord> Store::study(StudyId id) const { return read_study(impl_->statements, id, impl_->database.path()); }

std::vector<StudyRecord> Store::studies() const { return read_studies(impl_->statements, impl_->database.path()); }

bool Store::set_study_state(StudyId id, StudyState state, const std::string& error) {
  return impl_->atomically([&] {
    impl_->statements
        .use("UPDATE studies SET state = ?2, error = ?3, updated_ms = ?4, resumed_ms = iif(?2 = 'running', ?4, resumed_ms)"
             " WHERE id = ?1 AND state <> ?2 AND state NOT IN ('completed', 'cancelled')")
        ->bind(id, state, error, impl_->clock->unix_ms())
        .run();
    if (impl_->database.changes() == 0) return false;
    if (state == StudyState::cancelled) impl_->cancel_trials(id);
    return true;
  });
}

void Store::Impl::cancel_trials(StudyId study) {
  const UnixMs now = clock->unix_ms();
  statements
      .use("UPDATE attempts SET outcome = 'cancelled', ended_ms = ?2, error = 'the study was cancelled'"
           " WHERE outcome IS NULL AND trial_id IN (SELECT id FROM trials WHERE study_id = ?1 AND state = 'leased')")
      ->bind(study, now)
      .run();
  const std::int64_t first = next_told_index(study);
  statements
      .use("UPDATE trials SET state = 'cancelled', told_index = ?2 + place, updated_ms = ?3, ended_ms = ?3"
           " FROM (SELECT id AS open_id, row_number() OVER (ORDER BY ask_index) - 1 AS place FROM trials"
           "       WHERE study_id = ?1 AND state IN ('queued', 'leased'))"
           " WHERE id = open_id")
      ->bind(study, first, now)
      .run();
}

// ---- trials

std::vector<TrialId> Store::add_trials(StudyId study, std::span<const NewTrial> trials) {
  return impl_->atomically([&] {
    Impl& impl = *impl_;
    {
      const auto row = impl.statements.use("SELECT state FROM studies WHERE id = ?1");
      const std::string subject = impl.database.path() + ": study " + to_string(study);
      if (!row->bind(study).step()) throw StoreError(subject + " is unknown, no trials can be added to it");
      const auto state = row->choice<StudyState>(0);
      if (state == StudyState::completed || state == StudyState::cancelled) {
        throw StoreError(subject + " is " + std::string(name_of(state)) + ", no trials can be added to it");
      }
    }
    impl.require_next(study, trials);
    std::vector<TrialId> ids;
    ids.reserve(trials.size());
    const UnixMs now = impl.clock->unix_ms();
    for (const NewTrial& trial : trials) {
      const std::string architecture = canonical_text(trial.architecture);
      try {
        impl.statements
            .use("INSERT INTO trials (study_id, ask_index, architecture, steps, replica, seed, state, facts, created_ms,"
                 " updated_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'queued', ?7, ?8, ?8)")
            ->bind(study, trial.ask_index, architecture, trial.architecture.steps.size(), trial.replica, trial.seed,
                   trial.facts.dump(), now)
            .run();
      } catch (const StoreError& error) {
        throw StoreError(std::string(error.what()) + ": trial with ask_index " + std::to_string(trial.ask_index) + ", " +
                         architecture + " replica " + std::to_string(trial.replica) + ", of study " + to_string(study));
      }
      ids.push_back(TrialId{impl.database.last_insert_id()});
    }
    return ids;
  });
}

// With the UNIQUE of (study_id, ask_index), n of them within n places leave none out.
void Store::Impl::require_next(StudyId study, std::span<const NewTrial> trials) {
  const auto row = statements.use("SELECT coalesce(max(ask_index) + 1, 0) FROM trials WHERE study_id = ?1");
  row->bind(study).step();
  const std::int64_t first = row->integer(0), end = first + static_cast<std::int64_t>(trials.size());
  for (const NewTrial& trial : trials) {
    if (trial.ask_index >= first && trial.ask_index < end) continue;
    throw StoreError(database.path() + ": study " + to_string(study) + ": the trial with ask_index " +
                     std::to_string(trial.ask_index) + " cannot be added; expected " + std::to_string(first) + " to " +
                     std::to_string(end - 1) + ", which follow those that are stored");
  }
}

std::optional<int> Store::lease(TrialId trial, WorkerId worker) {
  return impl_->atomically([&]() -> std::optional<int> {
    const UnixMs now = impl_->clock->unix_ms();
    int attempt = 0;
    std::int64_t alone = 0;
    {
      const auto row = impl_->statements.use(
          "UPDATE trials SET state = 'leased', attempts = attempts + 1, updated_ms = ?2"
          " WHERE id = ?1 AND state = 'queued' RETURNING attempts, alone");
      if (!row->bind(trial, now).step()) return std::nullopt;
      attempt = static_cast<int>(row->integer(0));
      alone = row->integer(1);
      row->run();
    }
    impl_->statements.use("INSERT INTO attempts (trial_id, attempt, worker_id, started_ms, alone) VALUES (?1, ?2, ?3, ?4, ?5)")
        ->bind(trial, attempt, worker, now, alone)
        .run();
    return attempt;
  });
}

bool Store::readopt(TrialId trial, int attempt, WorkerId worker) {
  return impl_->atomically([&] {
    // Its worker lives, so this loss proved nothing.
    impl_->statements
        .use("UPDATE trials SET state = 'leased', updated_ms = ?3, lost = lost - 1,"
             " deaths = deaths - (SELECT died AND alone FROM attempts WHERE trial_id = ?1 AND attempt = ?2) WHERE id = ?1 AND state = 'queued' AND attempts = ?2 AND"
             " EXISTS (SELECT 1 FROM attempts AS a WHERE a.trial_id = ?1 AND a.attempt = ?2 AND a.outcome = 'lost' AND"
             " (SELECT name FROM workers WHERE id = a.worker_id) IS (SELECT name FROM workers WHERE id = ?4))")
        ->bind(trial, attempt, impl_->clock->unix_ms(), worker)
        .run();
    if (impl_->database.changes() == 0) return false;
    impl_->statements
        .use("UPDATE attempts SET outcome = NULL, ended_ms = NULL, error = '', worker_id = ?3, died = 0"
             " WHERE trial_id = ?1 AND attempt = ?2")
        ->bind(trial, attempt, worker)
        .run();
    return true;
  });
}

bool Store::add_epoch(TrialId trial, int attempt, const EpochReport& report, std::string_view claimed_by) {
  return impl_->atomically([&] {
    if (impl_->was_of_another(trial, attempt, claimed_by)) return false;
    impl_->statements
        .use("INSERT INTO epochs (trial_id, attempt, epoch, train_loss, dev_score, learning_rate, seconds, at_ms)"
             " SELECT trial_id, attempt, ?3, ?4, ?5, ?6, ?7, ?8 FROM attempts WHERE trial_id = ?1 AND attempt = ?2"
             " ON CONFLICT DO NOTHING")
        ->bind(trial, attempt, report.epoch, report.train_loss, report.dev_score, report.learning_rate, report.seconds,
               impl_->clock->unix_ms())
        .run();
    return impl_->database.changes() == 1;
  });
}

std::vector<EpochScore> Store::epoch_scores(StudyId study, std::span<const int> epochs) const {
  std::vector<EpochScore> scores;
  for (const int epoch : epochs) {
    const auto row = impl_->statements.use(
        "SELECT e.trial_id, e.dev_score, max(e.attempt) FROM trials AS t JOIN epochs AS e ON e.trial_id = t.id"
        " WHERE t.study_id = ?1 AND e.epoch = ?2 AND e.dev_score IS NOT NULL GROUP BY e.trial_id");
    row->bind(study, epoch);
    while (row->step()) scores.push_back({TrialId{row->integer(0)}, epoch, row->number(1)});
  }
  return scores;
}

int Store::requeue_leased() {
  return impl_->atomically([&] {
    const UnixMs now = impl_->clock->unix_ms();
    impl_->statements
        .use("UPDATE attempts SET outcome = 'lost', ended_ms = ?1, error = 'the daemon was restarted'"
             " WHERE outcome IS NULL")
        ->bind(now)
        .run();
    impl_->statements
        .use("UPDATE workers SET left_ms = ?1, left_reason = 'the daemon was restarted' WHERE left_ms IS NULL")
        ->bind(now)
        .run();
    impl_->statements.use("UPDATE trials SET state = 'queued', lost = lost + 1, updated_ms = ?1 WHERE state = 'leased'")->bind(now).run();
    return static_cast<int>(impl_->database.changes());
  });
}

std::vector<Trial> Store::trials(StudyId study) const { return read_trials(impl_->statements, study); }

std::optional<Trial> Store::trial(TrialId id) const {
  static const std::string sql = std::string(kTrialColumns) + "WHERE id = ?1";
  const auto row = impl_->statements.use(sql);
  if (!row->bind(id).step()) return std::nullopt;
  return trial_of(*row);
}

// ---- the end of an attempt
//
// A trial ends once. Whoever is first with a score wins, even if its lease had expired; what comes after finds the trial
// final. Any other outcome only counts from the attempt that holds the lease, since an older one says nothing about it.

FinishResult Store::finish(const TrialOutcome& outcome, bool worker_died, std::string_view claimed_by) {
  return impl_->atomically([&] { return impl_->finish(outcome, worker_died, claimed_by); });
}

FinishResult Store::Impl::finish(const TrialOutcome& outcome, bool worker_died, std::string_view claimed_by) {
  FinishResult result;
  const std::optional<CurrentTrial> trial = current(outcome.trial);
  if (!trial) {
    note_late(outcome, StudyId{}, false, "trial " + to_string(outcome.trial) + " is unknown");
    return result;
  }
  result.study = trial->study;
  result.ask_index = trial->ask_index;
  result.state = trial->state;
  bool exists = false;
  const std::optional<Outcome> before = ended_as(outcome.trial, outcome.attempt, exists);
  const bool scored = outcome.outcome == Outcome::completed || outcome.outcome == Outcome::pruned;
  const bool holds_lease = trial->state == TrialState::leased && outcome.attempt == trial->attempt;
  if (!exists) {
    note_late(outcome, trial->study, true, "that attempt never began");
  } else if (was_of_another(outcome.trial, outcome.attempt, claimed_by)) {
    note_late(outcome, trial->study, true, std::string(claimed_by) + " says so, which never had that attempt: dropped");
  } else if (is_final(trial->state) || !(scored || holds_lease)) {
    // A worker that answers a cancellation, repeats what was recorded, or hands back what it has not trained is no news.
    if (scored || (before != outcome.outcome && outcome.outcome != Outcome::preempted)) {
      note_late(outcome, trial->study, true, "the trial is " + std::string(name_of(trial->state)) + " already: dropped");
    }
  } else if (scored) {
    finish_scored(outcome, *trial, !holds_lease, result);
  } else {
    finish_otherwise(outcome, *trial, worker_died, result);
  }
  return result;
}

void Store::Impl::finish_scored(const TrialOutcome& outcome, const CurrentTrial& trial, bool late, FinishResult& result) {
  if (!outcome.score || !(outcome.score->dev_score >= 0 && outcome.score->dev_score <= 1)) {
    throw StoreError(database.path() + ": trial " + to_string(outcome.trial) + " attempt " +
                     std::to_string(outcome.attempt) + ": outcome " + std::string(name_of(outcome.outcome)) +
                     " needs a dev_score in [0, 1], got " + (outcome.score ? std::to_string(outcome.score->dev_score) : "none"));
  }
  end_attempt(outcome);
  if (late) {
    cancel_open_attempt(outcome.trial, "attempt " + std::to_string(outcome.attempt) + " ended " + std::string(name_of(outcome.outcome)) + " first");
    recount(outcome.trial);
    note_late(outcome, trial.study, true, "nobody had finished the trial: accepted");
  }
  result.told_index = next_told_index(trial.study);
  complete(outcome, result.told_index);
  result.accepted = true;
  result.state = TrialState::completed;
}

namespace {

/// What ended, counted; and what is to become of the trial. Sentences for people go to `error`.
TrialState judge(CurrentTrial& trial, Outcome outcome, bool worker_died, bool was_alone, std::string& error) {
  const RetryBudget& budget = trial.retries;
  switch (outcome) {
    case Outcome::completed:
    case Outcome::pruned: break;  // not here: they have a score
    case Outcome::cancelled: return TrialState::cancelled;
    case Outcome::preempted: ++trial.preempted; break;
    case Outcome::failed:
      ++trial.failed;
      ++trial.failures;
      trial.alone = false;  // whatever it did, its worker lives
      break;
    case Outcome::oom:
      if (++trial.oom > 1) ++trial.failures;  // once it is tried again for nothing, alone
      trial.alone = true;
      break;
    case Outcome::lost:
      ++trial.lost;
      if (!worker_died) break;
      trial.alone = true;
      if (!was_alone || ++trial.deaths <= budget.lost) break;
      error = "its worker died " + std::to_string(trial.deaths) + " times while it trained nothing but this trial, and the study allows " +
              std::to_string(budget.lost) + " (/retries/lost): training this architecture seems to kill workers; the last time: " + error;
      return TrialState::failed;
  }
  const bool spent = trial.failures > budget.failures || trial.failed > budget.failed || trial.oom - 1 > budget.oom;
  return spent && (outcome == Outcome::failed || outcome == Outcome::oom) ? TrialState::failed : TrialState::queued;
}

}  // namespace

void Store::Impl::finish_otherwise(TrialOutcome outcome, CurrentTrial trial, bool worker_died, FinishResult& result) {
  worker_died = worker_died && outcome.outcome == Outcome::lost;
  const bool was_alone = worker_died && attempt_was_alone(outcome);
  trial.state = judge(trial, outcome.outcome, worker_died, was_alone, outcome.error);
  end_attempt(outcome);
  if (worker_died) {
    statements.use("UPDATE attempts SET died = 1 WHERE trial_id = ?1 AND attempt = ?2")->bind(outcome.trial, outcome.attempt).run();
  }
  std::optional<std::int64_t> told_index;
  if (is_final(trial.state)) told_index = next_told_index(trial.study);
  // A worker that went away says nothing about the trial, unless that ended it: the text of its last failure stays.
  std::optional<std::string> error;
  const bool gone = outcome.outcome == Outcome::lost || outcome.outcome == Outcome::preempted;
  if (!gone || trial.state == TrialState::failed) error = outcome.error;
  end_trial(trial, outcome.trial, told_index, error);
  result.accepted = true;
  result.state = trial.state;
  result.requeued = trial.state == TrialState::queued;
  result.told_index = told_index.value_or(-1);
  result.alone = trial.alone;
}

bool Store::Impl::attempt_was_alone(const TrialOutcome& outcome) {
  const auto row = statements.use("SELECT alone FROM attempts WHERE trial_id = ?1 AND attempt = ?2");
  return row->bind(outcome.trial, outcome.attempt).step() && row->integer(0) != 0;
}

std::optional<CurrentTrial> Store::Impl::current(TrialId trial) {
  const auto row = statements.use(
      "SELECT t.study_id, t.ask_index, t.state, t.attempts, t.failures, t.failed, t.oom, t.preempted, t.lost, t.deaths, t.alone,"
      " s.retries, s.retries_failed, s.retries_oom, s.retries_lost FROM trials AS t JOIN studies AS s ON s.id = t.study_id WHERE t.id = ?1");
  if (!row->bind(trial).step()) return std::nullopt;
  const auto number = [&row](int column) { return static_cast<int>(row->integer(column)); };
  CurrentTrial found;
  found.study = StudyId{row->integer(0)};
  found.ask_index = row->integer(1);
  found.state = row->choice<TrialState>(2);
  found.attempt = number(3);
  found.failures = number(4);
  found.failed = number(5);
  found.oom = number(6);
  found.preempted = number(7);
  found.lost = number(8);
  found.deaths = number(9);
  found.alone = number(10) != 0;
  found.retries = {number(11), number(12), number(13), number(14)};
  return found;
}

bool Store::Impl::was_of_another(TrialId trial, int attempt, std::string_view worker) {
  if (worker.empty()) return false;
  const auto row = statements.use(
      "SELECT 1 FROM attempts AS a LEFT JOIN workers AS w ON w.id = a.worker_id WHERE a.trial_id = ?1 AND a.attempt = ?2 AND w.name IS NOT ?3");
  return row->bind(trial, attempt, worker).step();
}

std::optional<Outcome> Store::Impl::ended_as(TrialId trial, int attempt, bool& exists) {
  const auto row = statements.use("SELECT outcome FROM attempts WHERE trial_id = ?1 AND attempt = ?2");
  exists = row->bind(trial, attempt).step();
  if (!exists || row->is_null(0)) return std::nullopt;
  return row->choice<Outcome>(0);
}

std::int64_t Store::Impl::next_told_index(StudyId study) {
  const auto row = statements.use(
      "SELECT coalesce(max(told_index) + 1, 0) FROM trials WHERE study_id = ?1 AND told_index IS NOT NULL");
  row->bind(study).step();
  return row->integer(0);
}

void Store::Impl::end_attempt(const TrialOutcome& outcome) {
  statements
      .use("UPDATE attempts SET outcome = ?3, error = ?4, engine = ?5, device = ?6, code_version = ?7, torch_version = ?8,"
           " ended_ms = ?9, died = 0 WHERE trial_id = ?1 AND attempt = ?2")
      ->bind(outcome.trial, outcome.attempt, outcome.outcome, outcome.error, outcome.engine, outcome.device,
             outcome.code_version, outcome.torch_version, clock->unix_ms())
      .run();
}

// A late result makes another outcome of an attempt that was counted.
void Store::Impl::recount(TrialId trial) {
  statements
      .use("UPDATE trials SET failed = n.failed, oom = n.oom, preempted = n.preempted, lost = n.lost, deaths = n.deaths FROM"
           " (SELECT count(*) FILTER (WHERE outcome = 'failed') AS failed, count(*) FILTER (WHERE outcome = 'oom') AS oom,"
           "  count(*) FILTER (WHERE outcome = 'preempted') AS preempted, count(*) FILTER (WHERE outcome = 'lost') AS lost,"
           "  count(*) FILTER (WHERE died AND alone) AS deaths FROM attempts WHERE trial_id = ?1) AS n WHERE id = ?1")
      ->bind(trial)
      .run();
}

void Store::Impl::cancel_open_attempt(TrialId trial, const std::string& why) {
  statements
      .use("UPDATE attempts SET outcome = 'cancelled', error = ?2, ended_ms = ?3 WHERE trial_id = ?1 AND outcome IS NULL")
      ->bind(trial, why, clock->unix_ms())
      .run();
}

void Store::Impl::complete(const TrialOutcome& outcome, std::int64_t told_index) {
  const Score& score = *outcome.score;
  statements
      .use("UPDATE trials SET state = 'completed', told_index = ?2, scored_attempt = ?3, dev_score = ?4, best_epoch = ?5,"
           " dev_accuracy = ?6, dev_weighted_f1 = ?7, dev_macro_f1 = ?8, test_score = ?9, train_loss = ?10, train_s = ?11,"
           " parameters = ?12, pruned = ?13, updated_ms = ?14, ended_ms = ?14 WHERE id = ?1")
      ->bind(outcome.trial, told_index, outcome.attempt, score.dev_score, score.best_epoch, score.dev_accuracy,
             score.dev_weighted_f1, score.dev_macro_f1, score.test_score, score.train_loss, score.train_s,
             score.parameters, outcome.outcome == Outcome::pruned ? 1 : 0, clock->unix_ms())
      .run();
}

void Store::Impl::end_trial(const CurrentTrial& now, TrialId trial, std::optional<std::int64_t> told_index,
                            const std::optional<std::string>& error) {
  const UnixMs at = clock->unix_ms();
  std::optional<UnixMs> ended;
  if (told_index) ended = at;
  statements
      .use("UPDATE trials SET state = ?2, told_index = ?3, failures = ?4, error = coalesce(?5, error), updated_ms = ?6,"
           " ended_ms = ?7, failed = ?8, oom = ?9, preempted = ?10, lost = ?11, deaths = ?12, alone = ?13 WHERE id = ?1")
      ->bind(trial, now.state, told_index, now.failures, error, at, ended, now.failed, now.oom, now.preempted, now.lost,
             now.deaths, now.alone ? 1 : 0)
      .run();
}

// ---- studies that only fail

std::optional<std::string> Store::pause_if_failing(StudyId study) {
  return impl_->atomically([&]() -> std::optional<std::string> {
    const PauseOptions defaults;  // of studies that were stored before there was the option
    const UnixMs now = impl_->clock->unix_ms();
    PauseOptions limit;
    UnixMs since = 0;
    {
      const auto row = impl_->statements.use(
          "SELECT coalesce(spec ->> '$.pause_on.failures', ?2), coalesce(spec ->> '$.pause_on.within_s', ?3), max(resumed_ms, coalesce("
          " (SELECT ended_ms FROM trials WHERE study_id = ?1 AND ended_ms IS NOT NULL AND state = 'completed' ORDER BY ended_ms DESC LIMIT 1), 0))"
          " FROM studies WHERE id = ?1 AND state = 'running'");
      if (!row->bind(study, defaults.failures, defaults.within_s).step()) return std::nullopt;
      limit = {static_cast<int>(row->integer(0)), static_cast<int>(row->integer(1))};
      since = std::max(row->integer(2), now - 1000 * static_cast<UnixMs>(limit.within_s));
    }
    if (limit.failures == 0) return std::nullopt;
    const std::optional<std::string> why = impl_->failing_since(study, since, limit);
    if (why) {
      impl_->statements.use("UPDATE studies SET state = 'paused', error = ?2, updated_ms = ?3 WHERE id = ?1")->bind(study, *why, now).run();
    }
    return why;
  });
}

std::optional<std::string> Store::Impl::failing_since(StudyId study, UnixMs since, const PauseOptions& limit) {
  const auto row = statements.use(
      "SELECT count(*) FILTER (WHERE NOT a.died) + count(DISTINCT iif(a.died, a.ended_ms / 10000, NULL)), min(a.ended_ms), max(a.ended_ms)"
      " FROM attempts AS a JOIN trials AS t ON t.id = a.trial_id"
      " WHERE (a.outcome IN ('failed', 'oom') OR a.died) AND a.ended_ms > ?2 AND t.study_id = ?1 AND NOT a.inherited");
  row->bind(study, since).step();
  if (row->integer(0) < limit.failures) return std::nullopt;
  const auto last = statements.use(
      "SELECT a.outcome, a.error FROM attempts AS a JOIN trials AS t ON t.id = a.trial_id"
      " WHERE (a.outcome IN ('failed', 'oom') OR a.died) AND a.ended_ms > ?2 AND t.study_id = ?1 AND NOT a.inherited"
      " ORDER BY a.ended_ms DESC, a.trial_id DESC LIMIT 1");
  last->bind(study, since).step();
  return std::to_string(row->integer(0)) + " failures in a row within " + std::to_string((row->integer(2) - row->integer(1) + 999) / 1000) +
         " s, with no trial completed in between (/pause_on allows fewer than " + std::to_string(limit.failures) + " within " +
         std::to_string(limit.within_s) + " s); the last one ended " + last->text(0) + ": " + last->text(1);
}

void Store::Impl::note_late(const TrialOutcome& outcome, StudyId study, bool known_trial, const std::string& text) {
  Event event;
  event.kind = "result_late";
  event.study = study;
  if (known_trial) event.trial = outcome.trial;
  event.text = "attempt " + std::to_string(outcome.attempt) + " came in " + std::string(name_of(outcome.outcome)) + ", " + text;
  add_event(event);
}

// ---- the rest

void Store::add_fit(StudyId study, const FitRow& fit) {
  impl_->atomically([&] {
    impl_->statements
        .use("INSERT INTO surrogate_fits (study_id, fit_index, surrogate, observations, loss, rank_correlation,"
             " mean_abs_error, seconds, details, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
             " ON CONFLICT (study_id, fit_index) DO NOTHING")
        ->bind(study, fit.fit_index, fit.surrogate, fit.observations, fit.loss, fit.rank_correlation, fit.mean_abs_error,
               fit.seconds, fit.details.dump(), impl_->clock->unix_ms())
        .run();
  });
}

WorkerId Store::join_worker(const WorkerRecord& worker) {
  return impl_->atomically([&] {
    impl_->statements
        .use("INSERT INTO workers (name, host, pid, device, slots, code_version, torch_version, joined_ms)"
             " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")
        ->bind(worker.name, worker.host, worker.pid, worker.device, worker.slots, worker.code_version,
               worker.torch_version, impl_->clock->unix_ms())
        .run();
    return WorkerId{impl_->database.last_insert_id()};
  });
}

void Store::leave_worker(WorkerId worker, const std::string& reason) {
  impl_->atomically([&] {
    impl_->statements.use("UPDATE workers SET left_ms = ?2, left_reason = ?3 WHERE id = ?1 AND left_ms IS NULL")
        ->bind(worker, impl_->clock->unix_ms(), reason)
        .run();
  });
}

void Store::add_event(const Event& event) {
  impl_->atomically([&] { impl_->add_event(event); });
}

void Store::Impl::add_event(const Event& event) {
  statements
      .use("INSERT INTO events (at_ms, kind, study_id, trial_id, worker_id, text, retraining_id)"
           " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
      ->bind(clock->unix_ms(), event.kind, event.study, event.trial, event.worker, event.text, event.retraining)
      .run();
}

}  // namespace fusion
