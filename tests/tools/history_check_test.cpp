// The judge of the crash tests, on a database that is as it should be, and on doctored ones: each must be found out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>

#include "store/database.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"
#include "tools/crash/history_check.h"
#include "tools/crash/verdict.h"
#include "workers/client/journal.h"

namespace fusion::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

void acknowledge(Journal& journal, const std::string& what, TrialId trial, int number, int epoch, bool accepted = true) {
  protocol::Ack ack;
  ack.what = what;
  ack.trial = trial;
  ack.attempt = number;
  ack.epoch = epoch;
  ack.accepted = accepted;
  journal.received(ack);
}

void attempt(Store& store, ManualClock& clock, Journal& journal, TrialId trial, int number, Outcome outcome) {
  clock.advance(std::chrono::milliseconds(5));
  ASSERT_EQ(store.lease(trial, {}), number);
  const EpochReport report{1, 1.0, 0.25, 0.1, 1};
  journal.sent(protocol::Epoch{trial, number, report});
  store.add_epoch(trial, number, report);
  acknowledge(journal, "epoch", trial, number, 1);
  clock.advance(std::chrono::milliseconds(5));
  const TrialOutcome end = ended(trial, number, outcome, "it went wrong");
  if (outcome != Outcome::lost) journal.sent(protocol::Result{end});
  store.finish(end);
  if (outcome != Outcome::lost) acknowledge(journal, "result", trial, number, 0);
}

/// A study of five trials: one is completed at once, one fails first, one is lost first, one fails for good, one is pruned. Worker a did
/// most first attempts, worker b the others; both wrote down what they were told. Made once, copied for each test.
const TemporaryFolder& original() {
  static const TemporaryFolder folder;
  static const bool made = [] {
    ManualClock clock;
    Store store = Store::open((folder / "fusion.db").string(), clock);
    Journal a(folder / "a.jsonl"), b(folder / "b.jsonl");
    const StudyId study = add_study(store, "judged", 1);
    const std::vector<TrialId> ids = add_trials(store, study, 5);
    attempt(store, clock, a, ids[0], 1, Outcome::completed);
    attempt(store, clock, a, ids[1], 1, Outcome::failed);
    attempt(store, clock, b, ids[1], 2, Outcome::completed);
    attempt(store, clock, a, ids[2], 1, Outcome::lost);
    attempt(store, clock, b, ids[2], 2, Outcome::completed);
    attempt(store, clock, a, ids[3], 1, Outcome::failed);
    attempt(store, clock, b, ids[3], 2, Outcome::failed);
    attempt(store, clock, b, ids[4], 1, Outcome::pruned);
    return store.set_study_state(study, StudyState::completed);
  }();
  EXPECT_TRUE(made);
  return folder;
}

class HistoryCheckTest : public ::testing::Test {
 protected:
  HistoryCheckTest() {
    witness.journals = {folder / "a.jsonl", folder / "b.jsonl"};
    witness.submitted = {{StudyId{1}, "judged"}};
  }
  std::filesystem::path copied(const std::string& name) {
    std::filesystem::copy_file(original() / name, folder / name);
    return folder / name;
  }
  HistoryFindings check() { return check_history(path, witness); }
  /// Changes the file as nobody may: without triggers, keys and checks.
  void doctor(const std::string& sql) {
    Database database(path, Database::Access::create);
    database.execute("PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON; PRAGMA ignore_check_constraints = ON;");
    while (database.integer("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'") > 0) {
      database.execute(("DROP TRIGGER " + database.text("SELECT name FROM sqlite_schema WHERE type = 'trigger'")).c_str());
    }
    for (const char* table : {"trials", "attempts", "epochs"}) {
      const std::string name = table;
      database.execute(("CREATE TABLE bare AS SELECT * FROM " + name + "; DROP TABLE " + name + "; ALTER TABLE bare RENAME TO " + name).c_str());
    }
    database.execute(sql.c_str());
  }

  TemporaryFolder folder;
  std::string path = copied("fusion.db").string();
  Journal a{copied("a.jsonl")}, b{copied("b.jsonl")};
  HistoryWitness witness;
};

TEST_F(HistoryCheckTest, ALegalHistoryIsGood) {
  const HistoryFindings found = check();
  EXPECT_TRUE(found.good()) << verdict_text(found);
  EXPECT_EQ(found.trials, 5);
  EXPECT_EQ(found.attempts, 8);
  EXPECT_EQ(found.epochs, 8);
  EXPECT_EQ(found.results_acknowledged, 7);
  EXPECT_EQ(found.epochs_acknowledged, 8);
}

struct Doctored {
  const char* name;
  const char* sql;
  std::vector<std::string> HistoryFindings::*where;
  const char* sentence;
};
void PrintTo(const Doctored& doctored, std::ostream* out) { *out << doctored.name; }
class DoctoredTest : public HistoryCheckTest, public ::testing::WithParamInterface<Doctored> {};

TEST_P(DoctoredTest, IsFoundOut) {
  doctor(GetParam().sql);
  const HistoryFindings found = check();
  EXPECT_FALSE(found.good());
  EXPECT_THAT(found.*GetParam().where, Contains(HasSubstr(GetParam().sentence))) << verdict_text(found);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, DoctoredTest,
    ::testing::Values(
        Doctored{"ATrialIsGone", "DELETE FROM trials WHERE id = 1", &HistoryFindings::lost, "trial 1 attempt 1: its result was acknowledged"},
        Doctored{"AResultIsGone", "UPDATE attempts SET outcome = 'lost' WHERE trial_id = 2 AND attempt = 1", &HistoryFindings::lost,
                 "trial 2 attempt 1: its result failed was acknowledged; the database has \"lost\""},
        Doctored{"AScoreIsAnother", "UPDATE trials SET dev_score = 0.75 WHERE id = 1", &HistoryFindings::lost, "trial 1 attempt 1: its score was acknowledged"},
        Doctored{"AnEpochIsGone", "DELETE FROM epochs WHERE trial_id = 3 AND attempt = 2", &HistoryFindings::lost, "trial 3 attempt 2 epoch 1 was acknowledged and is not there"},
        Doctored{"AnEpochIsAnother", "UPDATE epochs SET dev_score = 0.5 WHERE trial_id = 3", &HistoryFindings::lost, "another dev score"},
        Doctored{"AStudyIsGone", "DELETE FROM studies; DELETE FROM trials; DELETE FROM attempts; DELETE FROM epochs", &HistoryFindings::lost, "study 1 \"judged\" was acknowledged"},
        Doctored{"ATrialIsThereTwice", "INSERT INTO trials SELECT * FROM trials WHERE id = 1; UPDATE trials SET id = 77 WHERE rowid = last_insert_rowid()",
                 &HistoryFindings::doubled, "has 2 trials of"},
        Doctored{"ToldTwice", "UPDATE trials SET told_index = 0 WHERE told_index = 1", &HistoryFindings::doubled, "was told 2 trials as number 0"},
        Doctored{"TwoScores", "UPDATE attempts SET outcome = 'completed' WHERE trial_id = 3", &HistoryFindings::doubled, "trial 3 has 2 attempts with a score"},
        Doctored{"AnEpochIsThereTwice", "INSERT INTO epochs SELECT * FROM epochs WHERE trial_id = 1", &HistoryFindings::doubled, "trial 1 attempt 1 has 2 epochs 1"},
        Doctored{"AStudyDoesNotEnd", "UPDATE studies SET state = 'paused', error = 'ten failures'", &HistoryFindings::stuck, "is paused: ten failures"},
        Doctored{"ATrialDoesNotEnd", "UPDATE trials SET state = 'queued' WHERE id = 4", &HistoryFindings::stuck, "trial 4 is queued"},
        Doctored{"AnAttemptDoesNotEnd", "UPDATE attempts SET outcome = NULL, ended_ms = NULL WHERE trial_id = 5", &HistoryFindings::stuck, "trial 5 attempt 1 is open"},
        Doctored{"AGapInTheEnds", "UPDATE trials SET told_index = 9 WHERE told_index = 4", &HistoryFindings::illegal, "its order of ends has gaps"},
        Doctored{"AGapInTheProposals", "UPDATE trials SET ask_index = 9 WHERE ask_index = 4", &HistoryFindings::illegal, "its proposals have gaps"},
        Doctored{"AnAttemptIsMissing", "DELETE FROM attempts WHERE trial_id = 2 AND attempt = 1", &HistoryFindings::illegal, "trial 2: its attempts are not 1 to 2"},
        Doctored{"NoSuchState", "UPDATE trials SET state = 'asleep' WHERE id = 2", &HistoryFindings::illegal, "trial 2 is in no known state: asleep"},
        Doctored{"CompletedWithoutAScore", "UPDATE trials SET dev_score = NULL WHERE id = 2", &HistoryFindings::illegal, "trial 2 is completed without a score"},
        Doctored{"FailedWithAScore", "UPDATE trials SET dev_score = 0.5, scored_attempt = 2 WHERE id = 4", &HistoryFindings::illegal, "trial 4 is failed with a score"},
        Doctored{"FailedWithoutAFailure", "UPDATE attempts SET outcome = 'preempted' WHERE trial_id = 4", &HistoryFindings::illegal, "trial 4 is failed, and no attempt was"},
        Doctored{"TheScoreIsOfAnother", "UPDATE trials SET scored_attempt = 1 WHERE id = 2", &HistoryFindings::illegal, "trial 2 attempt 1 is failed, though the score is of attempt 1"},
        Doctored{"PrunedAndNot", "UPDATE trials SET pruned = 0 WHERE id = 5", &HistoryFindings::illegal, "trial 5 attempt 1 is pruned, the trial says otherwise"},
        Doctored{"ACountIsWrong", "UPDATE trials SET lost = 5 WHERE id = 3", &HistoryFindings::illegal, "trial 3 counts other ends of attempts than it has"},
        Doctored{"TimeRunsBackwards", "UPDATE attempts SET started_ms = 5 WHERE trial_id = 2 AND attempt = 2", &HistoryFindings::illegal, "began before the one before it"},
        Doctored{"ATrialOfNoStudy", "UPDATE trials SET study_id = 0 WHERE id = 2", &HistoryFindings::illegal, "trial 2 has attempts or epochs and is not there"}),
    [](const auto& one) { return std::string(one.param.name); });

TEST_F(HistoryCheckTest, AnAcceptedResultIsAcceptedOnce) {
  a.sent(protocol::Result{ended(TrialId{1}, 1, Outcome::completed)});
  acknowledge(a, "result", TrialId{1}, 1, 0);
  EXPECT_THAT(check().doubled, Contains(HasSubstr("trial 1 attempt 1: its result was accepted twice")));
}

TEST_F(HistoryCheckTest, TwoAttemptsMayNotBothBeAccepted) {
  a.sent(protocol::Result{ended(TrialId{3}, 1, Outcome::completed)});
  acknowledge(a, "result", TrialId{3}, 1, 0);
  const HistoryFindings found = check();
  EXPECT_THAT(found.doubled, Contains(HasSubstr("trial 3: scores of attempts 1 and 2 were both accepted")));
  EXPECT_THAT(found.lost, Contains(HasSubstr("trial 3 attempt 1: its result completed was acknowledged")));
}

TEST_F(HistoryCheckTest, ARefusedScoreNeedsATrialThatEnded) {
  a.sent(protocol::Result{ended(TrialId{3}, 1, Outcome::completed)});
  acknowledge(a, "result", TrialId{3}, 1, 0, false);
  EXPECT_THAT(check().lost, IsEmpty());
  doctor("UPDATE trials SET state = 'queued' WHERE id = 3");
  EXPECT_THAT(check().lost, Contains(HasSubstr("trial 3 attempt 1: its score was refused, and the trial is queued")));
}

TEST_F(HistoryCheckTest, WhatWasNeverSentCannotBeAcknowledged) {
  acknowledge(b, "result", TrialId{1}, 1, 0);
  EXPECT_THAT(check().illegal, Contains(HasSubstr("acknowledged that was never sent")));
}

}  // namespace
}  // namespace fusion::testing
