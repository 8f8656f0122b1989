#include "tools/crash/history_check.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <unordered_map>

#include "base/error.h"
#include "space/trial.h"
#include "store/database.h"
#include "store/statement.h"
#include "workers/client/journal.h"

namespace fusion {

namespace {

using Sentences = std::vector<std::string>;

struct AttemptRow {
  std::int64_t number = 0, started_ms = 0, ended_ms = 0;
  std::string outcome;  // empty: open
};
struct TrialRow {
  std::int64_t study = 0, attempts = 0, scored_attempt = 0;
  std::string state, architecture;
  std::uint64_t seed = 0;
  std::optional<double> dev_score;
  bool pruned = false, told = false;
  std::vector<AttemptRow> log;
  std::map<std::int64_t, std::int64_t> epochs;  // attempt to how many
};

std::string trial_text(std::int64_t id) { return "trial " + std::to_string(id); }
std::string attempt_text(std::int64_t trial, std::int64_t attempt) { return trial_text(trial) + " attempt " + std::to_string(attempt); }
bool has_score(const std::string& outcome) { return outcome == "completed" || outcome == "pruned"; }

class Check {
 public:
  Check(const std::string& path, const HistoryWitness& witness) : database_(path, Database::Access::read_only), witness_(witness) {}

  HistoryFindings run() {
    Statement(database_, "BEGIN").run();  // all of one moment
    check_file();
    read_trials();
    check_doubles();
    check_order();
    for (const auto& [id, trial] : trials_) check_trial(id, trial);
    check_open();
    check_submitted();
    for (const std::filesystem::path& journal : witness_.journals) check_journal(read_journal(journal));
    return std::move(found_);
  }

 private:
  void check_file();
  void check_foreign_keys();
  void read_trials();
  void check_doubles();
  void check_order();
  void check_trial(std::int64_t id, const TrialRow& trial);
  void check_log(std::int64_t id, const TrialRow& trial);
  void check_score(std::int64_t id, const TrialRow& trial);
  void check_open();
  void check_submitted();
  void check_journal(const JournalText& journal);
  void check_result(const protocol::Result* sent, const protocol::Ack& ack);
  void check_epoch(const protocol::Epoch* sent, const protocol::Ack& ack);
  /// A sentence for each row of a query of one text column.
  void add_rows(Sentences& to, const char* sql);

  Database database_;
  const HistoryWitness& witness_;
  HistoryFindings found_;
  std::unordered_map<std::int64_t, TrialRow> trials_;
  std::set<std::pair<std::int64_t, std::int64_t>> accepted_;   // trial and attempt
  std::unordered_map<std::int64_t, std::int64_t> accepted_score_;  // trial to attempt
  std::set<std::tuple<std::int64_t, std::int64_t, int>> accepted_epochs_;
};

void Check::add_rows(Sentences& to, const char* sql) {
  for (Statement rows(database_, sql); rows.step();) to.push_back(rows.text(0));
}

void Check::check_file() {
  for (Statement rows(database_, "PRAGMA integrity_check"); rows.step();) {
    if (rows.text(0) != "ok") found_.illegal.push_back("integrity_check: " + rows.text(0));
  }
  try {
    check_foreign_keys();
  } catch (const StoreError& error) {
    found_.illegal.push_back(std::string("foreign keys cannot be checked: ") + error.what());
  }
}

void Check::check_foreign_keys() {
  add_rows(found_.illegal, "SELECT \"table\" || ' row ' || ifnull(rowid, '') || ' names a row of ' || parent || ' that is not there'"
                           " FROM pragma_foreign_key_check");
}

void Check::read_trials() {
  for (Statement rows(database_, "SELECT id, study_id, attempts, ifnull(scored_attempt, 0), state, architecture, seed, dev_score, pruned,"
                                 " told_index IS NOT NULL FROM trials"); rows.step();) {
    TrialRow& trial = trials_[rows.integer(0)];
    trial.study = rows.integer(1);
    trial.attempts = rows.integer(2);
    trial.scored_attempt = rows.integer(3);
    trial.state = rows.text(4);
    trial.architecture = rows.text(5);
    trial.seed = static_cast<std::uint64_t>(rows.integer(6));
    trial.dev_score = rows.optional_number(7);
    trial.pruned = rows.integer(8) != 0;
    trial.told = rows.integer(9) != 0;
  }
  for (Statement rows(database_, "SELECT trial_id, attempt, started_ms, ifnull(ended_ms, 0), ifnull(outcome, '') FROM attempts"
                                 " ORDER BY trial_id, attempt"); rows.step();) {
    trials_[rows.integer(0)].log.push_back({rows.integer(1), rows.integer(2), rows.integer(3), rows.text(4)});
    ++found_.attempts;
  }
  for (Statement rows(database_, "SELECT trial_id, attempt, count(DISTINCT epoch) FROM epochs GROUP BY trial_id, attempt"); rows.step();) {
    trials_[rows.integer(0)].epochs[rows.integer(1)] = rows.integer(2);
    found_.epochs += rows.integer(2);
  }
  found_.studies = database_.integer("SELECT count(*) FROM studies");
  found_.trials = static_cast<std::int64_t>(trials_.size());
}

void Check::check_doubles() {
  const auto twice = [this](const char* sql) { add_rows(found_.doubled, sql); };
  twice("SELECT 'study ' || study_id || ' has ' || count(*) || ' trials of ' || architecture || ' replica ' || replica"
        " FROM trials GROUP BY study_id, architecture, replica HAVING count(*) > 1");
  twice("SELECT 'study ' || study_id || ' has ' || count(*) || ' proposals ' || ask_index FROM trials GROUP BY study_id, ask_index HAVING count(*) > 1");
  twice("SELECT 'study ' || study_id || ' was told ' || count(*) || ' trials as number ' || told_index FROM trials"
        " WHERE told_index IS NOT NULL GROUP BY study_id, told_index HAVING count(*) > 1");
  twice("SELECT 'trial ' || trial_id || ' has ' || count(*) || ' attempts with a score' FROM attempts"
        " WHERE outcome IN ('completed', 'pruned') GROUP BY trial_id HAVING count(*) > 1");
  twice("SELECT 'trial ' || trial_id || ' has ' || count(*) || ' attempts ' || attempt FROM attempts GROUP BY trial_id, attempt HAVING count(*) > 1");
  twice("SELECT 'trial ' || trial_id || ' attempt ' || attempt || ' has ' || count(*) || ' epochs ' || epoch FROM epochs"
        " GROUP BY trial_id, attempt, epoch HAVING count(*) > 1");
  twice("SELECT 'study ' || study_id || ' has ' || count(*) || ' fits ' || fit_index FROM surrogate_fits GROUP BY study_id, fit_index HAVING count(*) > 1");
}

void Check::check_order() {
  add_rows(found_.illegal, "SELECT 'study ' || study_id || ': its proposals have gaps' FROM trials GROUP BY study_id"
                           " HAVING min(ask_index) <> 0 OR max(ask_index) <> count(*) - 1");
  add_rows(found_.illegal,
           "SELECT 'trial ' || t.id || ' counts other ends of attempts than it has' FROM trials AS t LEFT JOIN"
           " (SELECT trial_id, sum(outcome = 'failed') AS failed, sum(outcome = 'oom') AS oom, sum(outcome = 'preempted') AS preempted,"
           " sum(outcome = 'lost') AS lost FROM attempts GROUP BY trial_id) AS a ON a.trial_id = t.id"
           " WHERE t.failed <> ifnull(a.failed, 0) OR t.oom <> ifnull(a.oom, 0) OR t.preempted <> ifnull(a.preempted, 0) OR t.lost <> ifnull(a.lost, 0)");
  add_rows(found_.illegal, "SELECT 'study ' || study_id || ': its order of ends has gaps' FROM trials WHERE told_index IS NOT NULL"
                           " GROUP BY study_id HAVING min(told_index) <> 0 OR max(told_index) <> count(*) - 1");
}

void Check::check_trial(std::int64_t id, const TrialRow& trial) {
  if (trial.study == 0) {
    found_.illegal.push_back(trial_text(id) + " has attempts or epochs and is not there");
    return;
  }
  const std::optional<TrialState> state = enum_from_name<TrialState>(trial.state);
  if (!state) {
    found_.illegal.push_back(trial_text(id) + " is in no known state: " + trial.state);
    return;
  }
  if (!is_final(*state)) found_.stuck.push_back(trial_text(id) + " is " + trial.state);
  if (is_final(*state) != trial.told) {
    found_.illegal.push_back(trial_text(id) + " is " + trial.state + (trial.told ? " and has" : " and has no") + " place in the order of ends");
  }
  check_log(id, trial);
  check_score(id, trial);
}

// Attempts count from 1; at most the last is open; an attempt begins when the one before was given up.
void Check::check_log(std::int64_t id, const TrialRow& trial) {
  bool numbered = static_cast<std::int64_t>(trial.log.size()) == trial.attempts;
  for (std::size_t i = 0; i < trial.log.size(); ++i) {
    const AttemptRow& attempt = trial.log[i];
    numbered = numbered && attempt.number == static_cast<std::int64_t>(i) + 1;
    const bool open = attempt.outcome.empty();
    if (open != (attempt.ended_ms == 0)) found_.illegal.push_back(attempt_text(id, attempt.number) + ": outcome and end do not fit together");
    if (open && i + 1 < trial.log.size()) found_.illegal.push_back(attempt_text(id, attempt.number) + " is open, though a later one began");
    if (open) found_.stuck.push_back(attempt_text(id, attempt.number) + " is open");
    if (!open && !enum_from_name<Outcome>(attempt.outcome)) found_.illegal.push_back(attempt_text(id, attempt.number) + ": no outcome: " + attempt.outcome);
    if (i > 0 && attempt.started_ms < trial.log[i - 1].started_ms) {
      found_.illegal.push_back(attempt_text(id, attempt.number) + " began before the one before it");
    }
  }
  if (!numbered) found_.illegal.push_back(trial_text(id) + ": its attempts are not 1 to " + std::to_string(trial.attempts));
  if (trial.state == "queued" && !trial.log.empty() && trial.log.back().outcome.empty()) {
    found_.illegal.push_back(trial_text(id) + " is queued with an open attempt");
  }
  if (trial.state == "failed") {
    const auto bad = [](const AttemptRow& attempt) { return attempt.outcome == "failed" || attempt.outcome == "oom" || attempt.outcome == "lost"; };
    if (std::none_of(trial.log.begin(), trial.log.end(), bad)) found_.illegal.push_back(trial_text(id) + " is failed, and no attempt was");
  }
  for (const auto& [attempt, count] : trial.epochs) {
    if (attempt < 1 || attempt > trial.attempts) found_.illegal.push_back(attempt_text(id, attempt) + " has epochs and never began");
  }
}

// A score and one attempt that gave it if, and only if, the trial is completed.
void Check::check_score(std::int64_t id, const TrialRow& trial) {
  const bool completed = trial.state == "completed";
  if (completed != trial.dev_score.has_value() || completed != (trial.scored_attempt > 0)) {
    found_.illegal.push_back(trial_text(id) + " is " + trial.state + (completed ? " without a score" : " with a score"));
    return;
  }
  for (const AttemptRow& attempt : trial.log) {
    const bool scored = completed && attempt.number == trial.scored_attempt;
    if (has_score(attempt.outcome) != scored) {
      found_.illegal.push_back(attempt_text(id, attempt.number) + " is " + attempt.outcome + ", though the score is of attempt " +
                               std::to_string(trial.scored_attempt));
    } else if (scored && (attempt.outcome == "pruned") != trial.pruned) {
      found_.illegal.push_back(attempt_text(id, attempt.number) + " is " + attempt.outcome + ", the trial says otherwise");
    }
  }
  if (!completed) return;
  if (trial.scored_attempt > trial.attempts) found_.illegal.push_back(trial_text(id) + ": its score is of an attempt that never began");
  if (!(*trial.dev_score >= 0 && *trial.dev_score <= 1)) found_.illegal.push_back(trial_text(id) + ": its score is not in [0, 1]");
  if (witness_.objective == nullptr || trial.pruned) return;
  const std::optional<double> true_score = witness_.objective->score(architecture_from_text(trial.architecture), trial.seed);
  if (true_score != trial.dev_score) found_.illegal.push_back(trial_text(id) + ": its score is not the one that its workers made");
}

void Check::check_open() {
  add_rows(found_.stuck, "SELECT 'study ' || id || ' \"' || name || '\" is ' || state || iif(error = '', '', ': ' || error) FROM studies"
                         " WHERE state <> 'completed'");
}

void Check::check_submitted() {
  for (const auto& [id, name] : witness_.submitted) {
    Statement row(database_, "SELECT name FROM studies WHERE id = ?1");
    if (!row.bind(id).step()) {
      found_.lost.push_back("study " + to_string(id) + " \"" + name + "\" was acknowledged and is not there");
    } else if (row.text(0) != name) {
      found_.lost.push_back("study " + to_string(id) + " was acknowledged as \"" + name + "\" and is \"" + row.text(0) + "\"");
    }
  }
}

// One journal is of one worker's name: what was sent stands before its acknowledgement, whichever process of that name sent it.
void Check::check_journal(const JournalText& journal) {
  std::map<std::pair<std::int64_t, std::int64_t>, const protocol::Result*> results;
  std::map<std::tuple<std::int64_t, std::int64_t, int>, const protocol::Epoch*> epochs;
  found_.torn += journal.torn;
  for (const JournalLine& line : journal.lines) {
    if (line.sent) {
      if (const auto* result = std::get_if<protocol::Result>(&line.message)) {
        results[{result->outcome.trial.value, result->outcome.attempt}] = result;
      } else if (const auto* epoch = std::get_if<protocol::Epoch>(&line.message)) {
        epochs[{epoch->trial.value, epoch->attempt, epoch->report.epoch}] = epoch;
      }
    } else if (const auto* ack = std::get_if<protocol::Ack>(&line.message)) {
      if (ack->what == "result") {
        const auto sent = results.find({ack->trial.value, ack->attempt});
        check_result(sent == results.end() ? nullptr : sent->second, *ack);
      } else {
        const auto sent = epochs.find({ack->trial.value, ack->attempt, ack->epoch});
        check_epoch(sent == epochs.end() ? nullptr : sent->second, *ack);
      }
    }
  }
}

void Check::check_result(const protocol::Result* sent, const protocol::Ack& ack) {
  const std::string what = attempt_text(ack.trial.value, ack.attempt);
  if (sent == nullptr) {
    found_.illegal.push_back(what + ": a result was acknowledged that was never sent");
    return;
  }
  const auto found = trials_.find(ack.trial.value);
  if (found == trials_.end() || found->second.study == 0) {
    found_.lost.push_back(what + ": its result was acknowledged, and the trial is not there");
    return;
  }
  const TrialRow& trial = found->second;
  const std::string outcome(name_of(sent->outcome.outcome));
  // Not wanted: somebody finished first, or this attempt had ended. A score that nobody wants has another one, or an end, before it.
  if (!ack.accepted) {
    const auto state = enum_from_name<TrialState>(trial.state);
    if (has_score(outcome) && !(state && is_final(*state))) {
      found_.lost.push_back(what + ": its score was refused, and the trial is " + trial.state);
    }
    return;
  }
  ++found_.results_acknowledged;
  if (!accepted_.insert({ack.trial.value, ack.attempt}).second) found_.doubled.push_back(what + ": its result was accepted twice");
  if (has_score(outcome)) {
    const auto [first, fresh] = accepted_score_.try_emplace(ack.trial.value, ack.attempt);
    if (!fresh && first->second != ack.attempt) {
      found_.doubled.push_back(trial_text(ack.trial.value) + ": scores of attempts " + std::to_string(first->second) + " and " +
                               std::to_string(ack.attempt) + " were both accepted");
    }
  }
  const auto row = std::find_if(trial.log.begin(), trial.log.end(), [&](const AttemptRow& attempt) { return attempt.number == ack.attempt; });
  if (row == trial.log.end() || row->outcome != outcome) {
    found_.lost.push_back(what + ": its result " + outcome + " was acknowledged; the database has " + (row == trial.log.end() ? "no such attempt" : "\"" + row->outcome + "\""));
    return;
  }
  if (!has_score(outcome)) return;
  if (trial.scored_attempt != ack.attempt || trial.dev_score != sent->outcome.score->dev_score) {
    found_.lost.push_back(what + ": its score was acknowledged, and the trial has another one");
  }
}

void Check::check_epoch(const protocol::Epoch* sent, const protocol::Ack& ack) {
  const std::string what = attempt_text(ack.trial.value, ack.attempt) + " epoch " + std::to_string(ack.epoch);
  if (sent == nullptr) {
    found_.illegal.push_back(what + " was acknowledged and never sent");
    return;
  }
  if (!ack.accepted) return;  // it was known already, or the attempt is another's
  ++found_.epochs_acknowledged;
  if (!accepted_epochs_.insert({ack.trial.value, ack.attempt, ack.epoch}).second) found_.doubled.push_back(what + " was accepted twice");
  Statement row(database_, "SELECT dev_score FROM epochs WHERE trial_id = ?1 AND attempt = ?2 AND epoch = ?3");
  if (!row.bind(ack.trial.value, ack.attempt, ack.epoch).step()) {
    found_.lost.push_back(what + " was acknowledged and is not there");
  } else if (row.number(0) != sent->report.dev_score) {
    found_.lost.push_back(what + " was acknowledged with another dev score than the database has");
  }
}

}  // namespace

HistoryFindings check_history(const std::string& database, const HistoryWitness& witness) { return Check(database, witness).run(); }

}  // namespace fusion
