#include "tests/faults/database_check.h"

#include "base/clock.h"
#include "base/error.h"
#include "search/replay.h"
#include "search/study_strategy.h"
#include "store/backup.h"
#include "store/store.h"
#include "store/store_reader.h"

namespace fusion::testing {

using nlohmann::json;

namespace {

/// Rows that no query may give, and what one of them means.
struct Forbidden {
  const char* sql;
  const char* meaning;
};
constexpr Forbidden kForbidden[] = {
    {"SELECT study_id FROM trials WHERE told_index IS NOT NULL GROUP BY study_id"
     " HAVING count(*) <> max(told_index) + 1 OR count(DISTINCT told_index) <> count(*)",
     "the order of ends has gaps in study"},
    {"SELECT study_id FROM trials GROUP BY study_id HAVING count(*) <> max(ask_index) + 1", "the order of proposals has gaps in study"},
    {"SELECT min(id) FROM trials GROUP BY study_id, architecture, replica HAVING count(*) > 1", "there is a second trial like trial"},
    {"SELECT id FROM trials WHERE (state IN ('completed', 'failed', 'cancelled')) <> (told_index IS NOT NULL)",
     "final and not told, or told and not final: trial"},
    {"SELECT t.id FROM trials AS t WHERE t.state = 'completed' AND 1 <>"
     " (SELECT count(*) FROM attempts AS a WHERE a.trial_id = t.id AND a.outcome IN ('completed', 'pruned'))",
     "completed, but not by one attempt: trial"},
    {"SELECT t.id FROM trials AS t WHERE (t.state = 'leased') <>"
     " (SELECT count(*) FROM attempts AS a WHERE a.trial_id = t.id AND a.outcome IS NULL)",
     "leased without an open attempt, or an open attempt without a lease: trial"},
    {"SELECT t.id FROM trials AS t WHERE t.attempts <> (SELECT count(*) FROM attempts AS a WHERE a.trial_id = t.id)",
     "attempts are missing of trial"},
    {"SELECT s.id FROM studies AS s WHERE s.state = 'completed' AND EXISTS (SELECT 1 FROM trials WHERE study_id = s.id AND told_index IS NULL)",
     "completed with trials that have not ended: study"},
};

class Check {
 public:
  explicit Check(const std::string& path) : reader_(StoreReader::open(path)) {}

  std::vector<std::string> problems;

  void history() {
    for (const Forbidden& rule : kForbidden) {
      for (const json& row : rows(rule.sql)) problems.push_back(std::string(rule.meaning) + " " + row[0].dump());
    }
  }
  void acknowledged(const Acknowledged& seen) {
    for (const StudyId study : seen.studies) {
      require("SELECT 1 FROM studies WHERE id = " + to_string(study), "the acknowledged study " + to_string(study));
    }
    for (const protocol::Held& lease : seen.leases) require("SELECT 1 FROM attempts" + of(lease), "the lease of " + text(lease));
    for (const auto& [what, score] : seen.epochs) {
      require("SELECT 1 FROM epochs" + of(what.first) + " AND epoch = " + std::to_string(what.second) + " AND dev_score = " + json(score).dump(),
              "the acknowledged epoch " + std::to_string(what.second) + " of " + text(what.first));
    }
    for (const auto& [trial, score] : seen.results) {
      require("SELECT 1 FROM trials WHERE id = " + to_string(trial) + " AND state = 'completed' AND dev_score = " + json(score).dump(),
              "the acknowledged result of trial " + to_string(trial));
    }
  }
  void replay() {
    for (const StudyId id : reader_.study_ids()) {
      const StudyHistory history = reader_.history(id).value();
      const auto strategy = make_study_strategy(history.study, history.trials);
      const auto difference = Replay(history.study, history.trials, history.fits, *strategy, {}).run();
      if (difference) problems.push_back("study " + to_string(id) + " cannot be replayed: " + difference->sentence());
    }
  }

 private:
  json rows(const std::string& sql) { return reader_.query(sql, 20, std::chrono::seconds(60)).at("rows"); }
  void require(const std::string& sql, const std::string& what) {
    if (rows(sql).empty()) problems.push_back("lost: " + what);
  }
  static std::string of(const protocol::Held& what) {
    return " WHERE trial_id = " + to_string(what.trial) + " AND attempt = " + std::to_string(what.attempt);
  }
  static std::string text(const protocol::Held& what) { return "attempt " + std::to_string(what.attempt) + " of trial " + to_string(what.trial); }

  StoreReader reader_;
};

}  // namespace

std::vector<std::string> check_database(const std::filesystem::path& folder, const Acknowledged& acknowledged) {
  const std::filesystem::path file = folder / "fusion.db";
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) {
    if (acknowledged.empty()) return {};
    return {"lost: the database is gone"};
  }
  try {
    const SystemClock clock;
    Store::open(file.string(), clock);  // as a daemon does: log recovered, schema brought up to date
    verify_database(file.string());
    Check check(file.string());
    check.history();
    check.acknowledged(acknowledged);
    check.replay();
    return check.problems;
  } catch (const Error& error) {
    return {std::string("does not open clean: ") + error.what()};
  }
}

}  // namespace fusion::testing
