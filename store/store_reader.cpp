#include "store/store_reader.h"

#include <sqlite3.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/enum_names.h"
#include "base/error.h"
#include "store/database.h"
#include "store/migrations.h"
#include "store/page_cache.h"
#include "store/records.h"
#include "store/statement.h"
#include "store/transaction.h"

namespace fusion {
namespace {

using nlohmann::json;

// No value of ours comes near; a query that makes larger ones, or a larger answer, is a mistake or an attack.
constexpr int kLargestValue = 16 << 20;
constexpr std::size_t kLargestAnswer = 64u << 20;
constexpr std::chrono::milliseconds kLongestDeadline = std::chrono::hours(24);
// Virtual machine steps between two looks at the clock: well under a millisecond.
constexpr int kStepsPerLook = 2000;

// ---- rows as JSON

/// Text that JSON can carry: bytes that are not UTF-8 become U+FFFD.
std::string utf8(std::string text) {
  bool plain = true;
  for (const char c : text) plain = plain && static_cast<unsigned char>(c) < 0x80;
  if (plain) return text;
  return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace)).get<std::string>();
}

std::string hex(const std::string& bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char c : bytes) {
    text += kDigits[static_cast<unsigned char>(c) >> 4];
    text += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return text;
}

json value_of(const Statement& row, int column) {
  switch (row.column_type(column)) {
    case SQLITE_INTEGER: return row.integer(column);
    case SQLITE_FLOAT: return std::isfinite(row.number(column)) ? json(row.number(column)) : json(nullptr);
    case SQLITE_TEXT: return utf8(row.text(column));
    case SQLITE_BLOB: return hex(row.blob(column));
    default: return nullptr;
  }
}

/// The row as an object: the SQL names its columns as docs/protocol.md does. `documents` are columns that hold JSON.
json object_of(const Statement& row, std::initializer_list<std::string_view> documents = {}) {
  json object = json::object();
  for (int column = 0; column < row.column_count(); ++column) {
    object[row.column_name(column)] = value_of(row, column);
  }
  for (const std::string_view name : documents) {
    json& member = object[std::string(name)];
    if (member.is_string()) member = json::parse(member.get<std::string>());
  }
  return object;
}

json rows_of(Statement& row, std::initializer_list<std::string_view> documents = {}) {
  json rows = json::array();
  while (row.step()) rows.push_back(object_of(row, documents));
  return rows;
}

constexpr std::string_view kTrialColumns =
    "SELECT id, study_id AS study, ask_index, told_index, architecture, steps, seed, replica, state, pruned, attempts, failures,"
    " dev_score, test_score, best_epoch, train_loss, dev_accuracy, dev_weighted_f1, dev_macro_f1, train_s, parameters, error,"
    " facts, inherited_from, created_ms, ended_ms, failed, oom, preempted, lost, deaths, alone FROM trials ";

json trial_of(const Statement& row) {
  json trial = object_of(row, {"architecture", "facts"});
  // SQLite's integers are signed; a seed is not.
  trial["seed"] = static_cast<std::uint64_t>(trial["seed"].get<std::int64_t>());
  trial["pruned"] = trial["pruned"] == 1;
  trial["alone"] = trial["alone"] == 1;
  for (const char* outcome : {"failed", "oom", "preempted", "lost", "deaths"}) {
    trial["outcomes"][outcome] = std::move(trial[outcome]);
    trial.erase(outcome);
  }
  return trial;
}

json trials_of(Statement& row) {
  json trials = json::array();
  while (row.step()) trials.push_back(trial_of(row));
  return trials;
}

constexpr std::string_view kFitColumns =
    "SELECT fit_index, surrogate, observations, loss, rank_correlation, mean_abs_error, seconds, details, at_ms"
    " FROM surrogate_fits WHERE study_id = ?1 ";

// ---- what a person's statement may do

// PRAGMAs that only tell. Those of the second list do so only without a value.
bool pragma_only_tells(std::string_view name, const char* value) {
  static const std::set<std::string_view> kWithValue{"table_info",  "table_xinfo", "table_list", "index_info",
                                                     "index_xinfo", "index_list",  "foreign_key_list"};
  static const std::set<std::string_view> kWithout{"user_version", "application_id", "schema_version", "page_count",
                                                   "page_size",    "freelist_count", "journal_mode",   "database_list",
                                                   "encoding",     "compile_options", "function_list", "collation_list"};
  return kWithValue.contains(name) || (value == nullptr && kWithout.contains(name));
}

int authorize(void*, int action, const char* first, const char* second, const char*, const char*) {
  switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE: return SQLITE_OK;
    // Asked when a table-valued function (json_each) is first used; a real update of the schema is not read-only, and SQLite
    // refuses it in any case.
    case SQLITE_UPDATE: return std::string_view(first ? first : "") == "sqlite_master" ? SQLITE_OK : SQLITE_DENY;
    case SQLITE_FUNCTION: return std::string_view(second ? second : "") == "load_extension" ? SQLITE_DENY : SQLITE_OK;
    case SQLITE_PRAGMA: return pragma_only_tells(first ? first : "", second) ? SQLITE_OK : SQLITE_DENY;
    default: return SQLITE_DENY;
  }
}

/// While it lives, statements of the connection may only read, give way, and stop at the deadline.
class Guard {
 public:
  Guard(Database& database, std::chrono::milliseconds deadline, const RightOfWay* way)
      : database_(&database), end_(std::chrono::steady_clock::now() + std::min(deadline, kLongestDeadline)), giving_way_(way) {
    sqlite3_set_authorizer(database.handle(), authorize, nullptr);
    sqlite3_progress_handler(database.handle(), kStepsPerLook, past_deadline, this);
    database.wait_at_most(deadline.count());
  }
  ~Guard() {
    sqlite3_set_authorizer(database_->handle(), nullptr, nullptr);
    sqlite3_progress_handler(database_->handle(), 0, nullptr, nullptr);
    database_->wait_at_most(Database::kBusyMs);
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  static int past_deadline(void* self) {
    Guard& guard = *static_cast<Guard*>(self);
    return guard.giving_way_.look(guard.end_) >= guard.end_ ? 1 : 0;
  }
  Database* database_;
  std::chrono::steady_clock::time_point end_;
  GivingWay giving_way_;
};

json run_guarded(const Database& database, const std::string& sql, std::int64_t row_limit) {
  Statement statement(database, sql);
  if (!statement.is_read_only()) throw StoreError(database.path() + ": the statement writes, and queries only read");
  json columns = json::array(), rows = json::array();
  for (int column = 0; column < statement.column_count(); ++column) columns.push_back(utf8(statement.column_name(column)));
  bool truncated = false;
  std::size_t bytes = 0;
  while (statement.step()) {
    if (std::cmp_greater_equal(rows.size(), row_limit) || bytes > kLargestAnswer) {
      truncated = true;
      break;
    }
    json row = json::array();
    for (int column = 0; column < statement.column_count(); ++column) {
      row.push_back(value_of(statement, column));
      bytes += row.back().is_string() ? row.back().get_ref<const std::string&>().size() : 8;
    }
    rows.push_back(std::move(row));
  }
  return {{"columns", std::move(columns)}, {"rows", std::move(rows)}, {"truncated", truncated}};
}

}  // namespace

struct StoreReader::Impl {
  explicit Impl(Database opened) : database(std::move(opened)), statements(database) {}

  json summary(const Statement& row);
  json counts(StudyId study);
  json best_of(StudyId study);
  json last_fit(StudyId study);
  std::int64_t ended_since(StudyId study, UnixMs since);

  Database database;
  StatementCache statements;
  const RightOfWay* way = nullptr;
};

StoreReader StoreReader::open(const std::string& path) {
  auto impl = std::make_unique<Impl>(open_to_read(path));
  impl->database.execute("PRAGMA query_only = ON; PRAGMA cell_size_check = ON");
  impl->database.cache_at_most(kReaderCache);
  sqlite3_limit(impl->database.handle(), SQLITE_LIMIT_LENGTH, kLargestValue);
  sqlite3_limit(impl->database.handle(), SQLITE_LIMIT_ATTACHED, 0);
  const std::int64_t version = check_schema(impl->database);
  if (version != newest_schema()) {
    throw StoreError(path + ": its schema is version " + std::to_string(version) + ", and this program reads version " +
                     std::to_string(newest_schema()) + "; start fusiond on it once, which upgrades it");
  }
  return StoreReader(std::move(impl));
}

StoreReader::StoreReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StoreReader::StoreReader(StoreReader&&) noexcept = default;
StoreReader& StoreReader::operator=(StoreReader&&) noexcept = default;
StoreReader::~StoreReader() = default;

void StoreReader::give_way(const RightOfWay* way) { impl_->way = way; }

// ---- studies

namespace {

constexpr std::string_view kStudyColumns =
    "SELECT id, name, state, error, priority, seed, strategy, dataset, dataset_digest, created_ms, updated_ms,"
    " forked_from, forked_at, observed, spec, dataset_spec FROM studies ";

}  // namespace

json StoreReader::Impl::counts(StudyId study) {
  json counts{{"asked", 0}, {"total", nullptr}};
  for (const auto& [state, name] : EnumNames<TrialState>::kTable) counts[std::string(name)] = 0;
  const auto row = statements.use("SELECT state, count(*) FROM trials WHERE study_id = ?1 GROUP BY state");
  row->bind(study);
  std::int64_t asked = 0;
  while (row->step()) {
    counts[row->text(0)] = row->integer(1);
    asked += row->integer(1);
  }
  counts["asked"] = asked;
  const auto pruned = statements.use("SELECT count(*) FROM trials WHERE study_id = ?1 AND pruned");
  pruned->bind(study).step();
  counts["pruned"] = pruned->integer(0);
  return counts;
}

json StoreReader::Impl::best_of(StudyId study) {
  const auto row = statements.use(
      "SELECT id AS trial, architecture, dev_score FROM trials WHERE study_id = ?1 AND dev_score IS NOT NULL AND NOT pruned"
      " ORDER BY dev_score DESC, ask_index LIMIT 1");
  if (!row->bind(study).step()) return nullptr;
  return object_of(*row, {"architecture"});
}

json StoreReader::Impl::last_fit(StudyId study) {
  static const std::string sql = std::string(kFitColumns) + "ORDER BY fit_index DESC LIMIT 1";
  const auto row = statements.use(sql);
  if (!row->bind(study).step()) return nullptr;
  return object_of(*row, {"details"});
}

std::int64_t StoreReader::Impl::ended_since(StudyId study, UnixMs since) {
  const auto row = statements.use("SELECT count(*) FROM trials WHERE study_id = ?1 AND ended_ms > ?2 AND inherited_from IS NULL");
  row->bind(study, since).step();
  return row->integer(0);
}

json StoreReader::Impl::summary(const Statement& row) {
  json study = object_of(row, {"spec", "dataset_spec"});
  const StudyId id{row.integer(0)};
  study["seed"] = std::stoull(row.text(5));  // digits in SQL, whose integers are signed
  study["trials"] = counts(id);
  study["best"] = best_of(id);
  return study;
}

json StoreReader::studies() const {
  static const std::string sql = std::string(kStudyColumns) + "ORDER BY id";
  const Transaction snapshot(impl_->database, Transaction::Kind::read);
  json studies = json::array();
  const auto row = impl_->statements.use(sql);
  while (row->step()) {
    json study = impl_->summary(*row);
    study.erase("spec");
    study.erase("dataset_spec");
    studies.push_back(std::move(study));
  }
  return studies;
}

std::optional<json> StoreReader::study(StudyId id) const {
  static const std::string sql = std::string(kStudyColumns) + "WHERE id = ?1";
  const Transaction snapshot(impl_->database, Transaction::Kind::read);
  const auto row = impl_->statements.use(sql);
  if (!row->bind(id).step()) return std::nullopt;
  json study = impl_->summary(*row);
  study["last_fit"] = impl_->last_fit(id);
  study["trials_per_min"] = impl_->ended_since(id, SystemClock().unix_ms() - 60'000);
  study["eta_s"] = nullptr;  // how many trials there will be is the strategy's to know
  return study;
}

// ---- trials

json StoreReader::trials(StudyId study, const TrialQuery& query) const {
  std::string sql = std::string(kTrialColumns) + "WHERE study_id = ?1 ";
  // Only in the order of proposals may the state pick the index: elsewhere it would cost a sort of every match.
  const bool asked = query.order == TrialQuery::Order::asked;
  if (query.state) sql += asked ? "AND state = ?4 " : "AND +state = ?4 ";
  switch (query.order) {
    case TrialQuery::Order::asked: sql += "ORDER BY ask_index "; break;
    case TrialQuery::Order::ended: sql += "AND told_index IS NOT NULL ORDER BY told_index "; break;
    case TrialQuery::Order::best: sql += "AND dev_score IS NOT NULL AND NOT pruned ORDER BY dev_score DESC, ask_index "; break;
  }
  sql += "LIMIT ?2 OFFSET ?3";
  // To SQLite a negative limit means none at all.
  const std::int64_t limit = std::max<std::int64_t>(query.limit, 0);
  const auto row = impl_->statements.use(sql);
  if (query.state) {
    row->bind(study, limit, query.offset, *query.state);
  } else {
    row->bind(study, limit, query.offset);
  }
  return trials_of(*row);
}

std::optional<json> StoreReader::trial(TrialId id) const {
  static const std::string sql = std::string(kTrialColumns) + "WHERE id = ?1";
  const Transaction snapshot(impl_->database, Transaction::Kind::read);
  const auto row = impl_->statements.use(sql);
  if (!row->bind(id).step()) return std::nullopt;
  json trial = trial_of(*row);
  const auto attempts = impl_->statements.use(
      "SELECT a.attempt, a.worker_id AS worker, w.name AS worker_name, a.outcome, a.error, a.engine, a.device,"
      " a.code_version, a.torch_version, a.started_ms, a.ended_ms, a.alone, a.died"
      " FROM attempts AS a LEFT JOIN workers AS w ON w.id = a.worker_id WHERE a.trial_id = ?1 ORDER BY a.attempt");
  trial["attempt_log"] = rows_of(attempts->bind(id));
  const auto epochs = impl_->statements.use(
      "SELECT attempt, epoch, train_loss, dev_score, learning_rate, seconds FROM epochs WHERE trial_id = ?1"
      " ORDER BY attempt, epoch");
  trial["epochs"] = rows_of(epochs->bind(id));
  return trial;
}

json StoreReader::best(StudyId study, std::int64_t top) const {
  return trials(study, {std::nullopt, TrialQuery::Order::best, top, 0});
}

// ---- retrainings

namespace {

constexpr std::string_view kRetrainingColumns =
    "SELECT r.id, r.study_id AS study, coalesce(s.name, json_extract(r.origin, '$.study.name')) AS study_name, r.trial_id AS trial,"
    " r.architecture, r.steps, r.dataset, r.dataset_digest, r.head, r.seed, r.priority, r.retries, r.state, r.attempts, r.failures,"
    " r.dev_score, r.test_score, r.best_epoch, r.train_loss, r.train_s, r.parameters, r.trained_parameters, r.batch, r.error,"
    " (SELECT max(epoch) FROM retraining_epochs AS e WHERE e.retraining_id = r.id) AS last_epoch,"
    " json_extract(r.options, '$.fusion_epochs') + json_extract(r.options, '$.epochs') AS total_epochs,"
    " r.created_ms, r.updated_ms, r.ended_ms, r.options";
constexpr std::string_view kRetrainingTables = " FROM retrainings AS r LEFT JOIN studies AS s ON s.id = r.study_id ";

}  // namespace

json StoreReader::retrainings(const RetrainingQuery& query) const {
  static const std::string sql = std::string(kRetrainingColumns) + std::string(kRetrainingTables) +
                                 "WHERE (?1 IS NULL OR r.state = ?1) AND (?2 IS NULL OR r.head = ?2) AND (?3 IS NULL OR r.study_id = ?3)"
                                 " AND (?4 IS NULL OR r.trial_id = ?4) ";
  const auto row = impl_->statements.use(
      sql + (query.best ? "AND r.dev_score IS NOT NULL ORDER BY r.dev_score DESC, r.id " : "ORDER BY r.id DESC ") + "LIMIT ?5 OFFSET ?6");
  row->bind(query.state, query.head, query.study, query.trial, std::max<std::int64_t>(query.limit, 0), query.offset);
  return rows_of(*row, {"architecture", "options"});
}

std::optional<json> StoreReader::retraining(RetrainingId id) const {
  static const std::string sql = std::string(kRetrainingColumns) + ", r.origin AS lineage, r.dataset_path, r.dataset_spec, r.folder,"
                                 " r.evaluation, r.scored_attempt" + std::string(kRetrainingTables) + "WHERE r.id = ?1";
  const Transaction snapshot(impl_->database, Transaction::Kind::read);
  const auto row = impl_->statements.use(sql);
  if (!row->bind(id).step()) return std::nullopt;
  json retraining = object_of(*row, {"architecture", "options", "lineage", "dataset_spec", "evaluation"});
  const auto attempts = impl_->statements.use(
      "SELECT a.attempt, a.worker_id AS worker, w.name AS worker_name, a.outcome, a.error, a.device, a.code_version, a.torch_version,"
      " a.started_ms, a.ended_ms FROM retraining_attempts AS a LEFT JOIN workers AS w ON w.id = a.worker_id"
      " WHERE a.retraining_id = ?1 ORDER BY a.attempt");
  retraining["attempt_log"] = rows_of(attempts->bind(id));
  const auto epochs = impl_->statements.use(
      "SELECT attempt, epoch, phase, train_loss, dev_loss, dev_score, learning_rate, seconds, rows_per_s FROM retraining_epochs"
      " WHERE retraining_id = ?1 ORDER BY attempt, epoch");
  retraining["epochs"] = rows_of(epochs->bind(id));
  const auto artifacts =
      impl_->statements.use("SELECT name, path, bytes, sha256 FROM artifacts WHERE retraining_id = ?1 ORDER BY name");
  retraining["artifacts"] = rows_of(artifacts->bind(id));
  return retraining;
}

// ---- the rest

json StoreReader::fits(StudyId study) const {
  static const std::string sql = std::string(kFitColumns) + "ORDER BY fit_index";
  const auto row = impl_->statements.use(sql);
  return rows_of(row->bind(study), {"details"});
}

json StoreReader::workers() const {
  const auto row = impl_->statements.use(
      "SELECT id, name, host, pid, device, slots, code_version, torch_version,"
      " (SELECT json_group_array(trial_id) FROM attempts WHERE worker_id = workers.id AND outcome IS NULL) AS held,"
      " max(?1 - joined_ms, 0) / 1000.0 AS connected_s, NULL AS silent_s FROM workers WHERE left_ms IS NULL ORDER BY id");
  return rows_of(row->bind(SystemClock().unix_ms()), {"held"});
}

json StoreReader::events(std::optional<StudyId> study, std::int64_t after_id, std::int64_t limit) const {
  std::string sql =
      "SELECT id, at_ms, kind, study_id AS study, trial_id AS trial, worker_id AS worker,"
      " retraining_id AS retraining, text FROM events WHERE id > ?1 ";
  if (study) sql += "AND study_id = ?3 ";
  const auto row = impl_->statements.use(sql + "ORDER BY id LIMIT ?2");
  const std::int64_t most = std::max<std::int64_t>(limit, 0);
  if (study) {
    row->bind(after_id, most, *study);
  } else {
    row->bind(after_id, most);
  }
  return rows_of(*row);
}

std::vector<StudyId> StoreReader::study_ids() const {
  std::vector<StudyId> ids;
  const auto row = impl_->statements.use("SELECT id FROM studies ORDER BY id");
  while (row->step()) ids.push_back(StudyId{row->integer(0)});
  return ids;
}

std::optional<StudyHistory> StoreReader::history(StudyId id) const {
  const Transaction snapshot(impl_->database, Transaction::Kind::read);
  auto study = read_study(impl_->statements, id, impl_->database.path());
  if (!study) return std::nullopt;
  return StudyHistory{std::move(*study), read_trials(impl_->statements, id), read_fits(impl_->statements, id)};
}

json StoreReader::query(const std::string& sql, std::int64_t row_limit, std::chrono::milliseconds deadline) const {
  if (row_limit < 0) {
    throw StoreError("the row limit of a query must be 0 or more, got " + std::to_string(row_limit));
  }
  const Guard guard(impl_->database, deadline, impl_->way);
  try {
    return run_guarded(impl_->database, sql, row_limit);
  } catch (const StoreError& error) {
    switch (sqlite3_errcode(impl_->database.handle())) {
      case SQLITE_INTERRUPT:
        throw StoreError(impl_->database.path() + ": the query was stopped at its deadline of " +
                         std::to_string(deadline.count()) + " ms");
      case SQLITE_AUTH: throw StoreError(std::string(error.what()) + ": queries only read, and change no settings");
      default: throw;
    }
  }
}

}  // namespace fusion
