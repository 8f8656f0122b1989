#include <algorithm>
#include <utility>

#include "base/digest.h"
#include "store/store_impl.h"

namespace fusion {

namespace {

constexpr std::string_view kColumns =
    "SELECT id, study_id, trial_id, origin, architecture, dataset_path, dataset_digest, options, seed, folder, state, priority,"
    " attempts, failures, retries, dev_score, error, created_ms, updated_ms FROM retrainings ";

RetrainingRecord read_retraining(const Statement& row, const std::string& path) {
  RetrainingRecord record;
  record.id = RetrainingId{row.integer(0)};
  const std::string where = path + ": retraining " + to_string(record.id);
  record.study = StudyId{row.integer(1)};
  record.trial = TrialId{row.integer(2)};
  record.job.retraining = record.id;
  record.job.lineage = nlohmann::json::parse(row.text(3));
  record.job.architecture = architecture_from_text(row.text(4));
  record.job.dataset_path = row.text(5);
  record.job.dataset_digest = row.text(6);
  record.job.options = spec_from_text<RetrainingOptions>(row.text(7), where + ": options");
  record.job.seed = static_cast<std::uint64_t>(row.integer(8));
  record.job.folder = row.text(9);
  record.state = row.choice<RetrainingState>(10);
  record.priority = static_cast<int>(row.integer(11));
  record.job.attempt = static_cast<int>(row.integer(12));
  record.failures = static_cast<int>(row.integer(13));
  record.retries = static_cast<int>(row.integer(14));
  record.dev_score = row.optional_number(15);
  record.error = row.text(16);
  record.created = row.integer(17);
  record.updated = row.integer(18);
  return record;
}

/// A name that no other retraining has, also not one of a database that was here before: a checkpoint found in the folder is its own.
std::string folder_name(RetrainingId id, const std::string& database, UnixMs now) {
  const std::string mark = sha256_of(database + "\n" + to_string(id) + "\n" + std::to_string(now));
  return "retraining-" + to_string(id) + "-" + mark.substr(0, 8);
}

/// What an attempt is, seen from its retraining.
struct AttemptState {
  bool begun = false, last = false, open = false;
};

}  // namespace

RetrainingRecord Store::create_retraining(const NewRetraining& given) {
  return impl_->atomically([&] {
    Impl& impl = *impl_;
    const UnixMs now = impl.clock->unix_ms();
    const std::string options = given.options.to_json().dump(), dataset = given.dataset.to_json().dump();
    // What cannot be read back is refused now, not at the next start.
    spec_from_text<RetrainingOptions>(options, "retraining: options");
    spec_from_text<DatasetSpec>(dataset, "retraining: dataset");
    impl.statements
        .use("INSERT INTO retrainings (study_id, trial_id, origin, architecture, steps, dataset, dataset_digest, dataset_path,"
             " dataset_spec, head, options, seed, priority, retries, state, folder, created_ms, updated_ms)"
             " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 'queued', '', ?15, ?15)")
        ->bind(given.study, given.trial, given.lineage.dump(), canonical_text(given.architecture), given.architecture.steps.size(),
               given.dataset.name, given.dataset.digest, given.dataset_path, dataset, given.options.head, options, given.seed,
               given.priority, given.retries, now)
        .run();
    const RetrainingId id{impl.database.last_insert_id()};
    impl.statements.use("UPDATE retrainings SET folder = ?2 WHERE id = ?1")
        ->bind(id, given.artifacts + "/" + folder_name(id, impl.database.path(), now))
        .run();
    return *retraining(id);
  });
}

std::optional<RetrainingRecord> Store::retraining(RetrainingId id) const {
  static const std::string sql = std::string(kColumns) + "WHERE id = ?1";
  const auto row = impl_->statements.use(sql);
  if (!row->bind(id).step()) return std::nullopt;
  return read_retraining(*row, impl_->database.path());
}

std::vector<RetrainingRecord> Store::open_retrainings() const {
  static const std::string sql = std::string(kColumns) + "WHERE ended_ms IS NULL ORDER BY id";
  std::vector<RetrainingRecord> records;
  const auto row = impl_->statements.use(sql);
  while (row->step()) records.push_back(read_retraining(*row, impl_->database.path()));
  return records;
}

std::optional<int> Store::lease_retraining(RetrainingId id, WorkerId worker) {
  return impl_->atomically([&]() -> std::optional<int> {
    const UnixMs now = impl_->clock->unix_ms();
    int attempt = 0;
    {
      const auto row = impl_->statements.use(
          "UPDATE retrainings SET state = 'leased', attempts = attempts + 1, updated_ms = ?2 WHERE id = ?1 AND state = 'queued'"
          " AND NOT EXISTS (SELECT 1 FROM retraining_attempts WHERE retraining_id = ?1 AND outcome IS NULL) RETURNING attempts");
      if (!row->bind(id, now).step()) return std::nullopt;
      attempt = static_cast<int>(row->integer(0));
      row->run();
    }
    impl_->statements
        .use("INSERT INTO retraining_attempts (retraining_id, attempt, worker_id, started_ms) VALUES (?1, ?2, ?3, ?4)")
        ->bind(id, attempt, worker, now)
        .run();
    return attempt;
  });
}

bool Store::readopt_retraining(RetrainingId id, int attempt, WorkerId worker) {
  return impl_->atomically([&] {
    impl_->statements
        .use("UPDATE retrainings SET state = 'leased', updated_ms = ?3 WHERE id = ?1 AND state = 'queued' AND attempts = ?2 AND"
             " EXISTS (SELECT 1 FROM retraining_attempts AS a WHERE a.retraining_id = ?1 AND a.attempt = ?2 AND a.outcome = 'lost' AND"
             " (SELECT name FROM workers WHERE id = a.worker_id) IS (SELECT name FROM workers WHERE id = ?4))")
        ->bind(id, attempt, impl_->clock->unix_ms(), worker)
        .run();
    if (impl_->database.changes() == 0) return false;
    impl_->statements
        .use("UPDATE retraining_attempts SET outcome = NULL, ended_ms = NULL, error = '', worker_id = ?3"
             " WHERE retraining_id = ?1 AND attempt = ?2")
        ->bind(id, attempt, worker)
        .run();
    return true;
  });
}

bool Store::Impl::was_of_another(RetrainingId retraining, int attempt, std::string_view worker) {
  if (worker.empty()) return false;
  const auto row = statements.use(
      "SELECT 1 FROM retraining_attempts AS a LEFT JOIN workers AS w ON w.id = a.worker_id"
      " WHERE a.retraining_id = ?1 AND a.attempt = ?2 AND w.name IS NOT ?3");
  return row->bind(retraining, attempt, worker).step();
}

bool Store::add_retraining_epoch(RetrainingId id, int attempt, const RetrainingEpoch& e, std::string_view claimed_by) {
  return impl_->atomically([&] {
    if (impl_->was_of_another(id, attempt, claimed_by)) return false;
    impl_->statements
        .use("INSERT INTO retraining_epochs (retraining_id, attempt, epoch, phase, train_loss, dev_loss, dev_score, learning_rate,"
             " seconds, rows_per_s, at_ms) SELECT retraining_id, attempt, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11"
             " FROM retraining_attempts WHERE retraining_id = ?1 AND attempt = ?2 ON CONFLICT DO NOTHING")
        ->bind(id, attempt, e.epoch, e.phase, e.train_loss, e.dev_loss, e.dev_score, e.learning_rate, e.seconds, e.rows_per_s,
               impl_->clock->unix_ms())
        .run();
    return impl_->database.changes() == 1;
  });
}

// ---- the end of an attempt

RetrainingFinish Store::finish_retraining(const RetrainingOutcome& outcome, std::string_view claimed_by) {
  return impl_->atomically([&] { return impl_->finish(outcome, claimed_by); });
}

RetrainingFinish Store::Impl::finish(const RetrainingOutcome& outcome, std::string_view claimed_by) {
  RetrainingFinish result;
  AttemptState attempt;
  int failures = 0, retries = 0;
  StudyId study;
  {
    const auto row = statements.use(
        "SELECT r.state, r.failures, r.retries, r.study_id, a.attempt = r.attempts, a.outcome IS NULL, a.attempt IS NULL"
        " FROM retrainings AS r LEFT JOIN retraining_attempts AS a ON a.retraining_id = r.id AND a.attempt = ?2 WHERE r.id = ?1");
    if (!row->bind(outcome.retraining, outcome.attempt).step()) return result;
    result.state = row->choice<RetrainingState>(0);
    failures = static_cast<int>(row->integer(1));
    retries = static_cast<int>(row->integer(2));
    study = StudyId{row->integer(3)};
    attempt.begun = row->integer(6) == 0;
    attempt.last = row->integer(4) != 0;
    attempt.open = attempt.begun && row->integer(5) != 0;
  }
  const bool completed = outcome.outcome == Outcome::completed;
  result.accepted = attempt.begun && !is_final(result.state) && (completed ? attempt.last : attempt.open) &&
                    !was_of_another(outcome.retraining, outcome.attempt, claimed_by);
  if (completed && !attempt.open) {
    const std::string end = result.accepted ? "nobody had finished the retraining: accepted" : "dropped";
    add_event({0, 0, "result_late", study, {}, {}, "attempt " + std::to_string(outcome.attempt) + " came in completed, " + end,
               outcome.retraining});
  }
  if (!result.accepted) return result;
  end_attempt(outcome);
  if (completed) {
    complete(outcome);
    result.state = RetrainingState::completed;
    return result;
  }
  const bool failed = outcome.outcome == Outcome::failed || outcome.outcome == Outcome::oom;
  if (failed) ++failures;
  if (outcome.outcome == Outcome::cancelled) result.state = RetrainingState::cancelled;
  else if (result.state == RetrainingState::leased) result.state = failures > retries ? RetrainingState::failed : RetrainingState::queued;
  const UnixMs now = clock->unix_ms();
  // A worker that went away says nothing about the retraining: the text of its last failure stays.
  statements
      .use("UPDATE retrainings SET state = ?2, failures = ?3, error = coalesce(?4, error), updated_ms = ?5, ended_ms = ?6 WHERE id = ?1")
      ->bind(outcome.retraining, result.state, failures, failed ? std::optional(outcome.error) : std::nullopt, now,
             is_final(result.state) ? std::optional(now) : std::nullopt)
      .run();
  return result;
}

void Store::Impl::end_attempt(const RetrainingOutcome& outcome) {
  statements
      .use("UPDATE retraining_attempts SET outcome = ?3, error = ?4, device = ?5, code_version = ?6, torch_version = ?7, ended_ms = ?8"
           " WHERE retraining_id = ?1 AND attempt = ?2")
      ->bind(outcome.retraining, outcome.attempt, outcome.outcome, outcome.error, outcome.device, outcome.code_version,
             outcome.torch_version, clock->unix_ms())
      .run();
}

void Store::Impl::complete(const RetrainingOutcome& outcome) {
  if (!outcome.score || !(outcome.score->dev_score >= 0 && outcome.score->dev_score <= 1)) {
    throw StoreError(database.path() + ": retraining " + to_string(outcome.retraining) + " attempt " + std::to_string(outcome.attempt) +
                     ": outcome completed needs a dev_score in [0, 1], got " +
                     (outcome.score ? std::to_string(outcome.score->dev_score) : "none"));
  }
  const RetrainingScore& score = *outcome.score;
  for (const Artifact& artifact : score.artifacts) {
    statements.use("INSERT INTO artifacts (retraining_id, name, path, bytes, sha256) VALUES (?1, ?2, ?3, ?4, ?5)")
        ->bind(outcome.retraining, artifact.name, artifact.path, artifact.bytes, artifact.sha256)
        .run();
  }
  statements
      .use("UPDATE retrainings SET state = 'completed', scored_attempt = ?2, dev_score = ?3, test_score = ?4, best_epoch = ?5,"
           " train_loss = ?6, train_s = ?7, parameters = ?8, trained_parameters = ?9, batch = ?10, evaluation = ?11,"
           " updated_ms = ?12, ended_ms = ?12 WHERE id = ?1")
      ->bind(outcome.retraining, outcome.attempt, score.dev_score, score.test_score, score.best_epoch, score.train_loss, score.train_s,
             score.parameters, score.trained_parameters, score.batch,
             score.evaluation.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), clock->unix_ms())
      .run();
}

// ---- what people ask for

RetrainingChange Store::Impl::change(RetrainingId id, RetrainingState to) {
  RetrainingChange result;
  {
    const auto row = statements.use("SELECT state FROM retrainings WHERE id = ?1");
    if (!row->bind(id).step()) return result;
    result.state = row->choice<RetrainingState>(0);
  }
  result.known = true;
  // What may become `queued` by somebody's wish is paused; what ends by itself is not asked for here.
  const bool allowed = to == RetrainingState::queued ? result.state == RetrainingState::paused : !is_final(result.state);
  if (!allowed || result.state == to) return result;
  const UnixMs now = clock->unix_ms();
  if (to == RetrainingState::cancelled) {
    statements
        .use("UPDATE retraining_attempts SET outcome = 'cancelled', error = 'the retraining was cancelled', ended_ms = ?2"
             " WHERE retraining_id = ?1 AND outcome IS NULL")
        ->bind(id, now)
        .run();
  }
  statements.use("UPDATE retrainings SET state = ?2, updated_ms = ?3, ended_ms = ?4 WHERE id = ?1")
      ->bind(id, to, now, is_final(to) ? std::optional(now) : std::nullopt)
      .run();
  result.changed = true;
  result.state = to;
  return result;
}

RetrainingChange Store::pause_retraining(RetrainingId id) {
  return impl_->atomically([&] { return impl_->change(id, RetrainingState::paused); });
}

RetrainingChange Store::resume_retraining(RetrainingId id) {
  return impl_->atomically([&] { return impl_->change(id, RetrainingState::queued); });
}

RetrainingChange Store::cancel_retraining(RetrainingId id) {
  return impl_->atomically([&] { return impl_->change(id, RetrainingState::cancelled); });
}

int Store::requeue_leased_retrainings() {
  return impl_->atomically([&] {
    const UnixMs now = impl_->clock->unix_ms();
    impl_->statements
        .use("UPDATE retraining_attempts SET outcome = 'lost', ended_ms = ?1, error = 'the daemon was restarted'"
             " WHERE outcome IS NULL")
        ->bind(now)
        .run();
    const int ended = static_cast<int>(impl_->database.changes());
    impl_->statements.use("UPDATE retrainings SET state = 'queued', updated_ms = ?1 WHERE state = 'leased'")->bind(now).run();
    return ended;
  });
}

}  // namespace fusion
