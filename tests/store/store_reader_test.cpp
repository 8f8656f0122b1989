#include "store/store_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "store/database.h"
#include "store/migrations.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using namespace std::chrono_literals;

/// A reader beside the writer that filled the file.
class StoreReaderTest : public ::testing::Test {
 protected:
  StoreReaderTest() { fusion::testing::fill_with_samples(store, clock); }
  json query(const std::string& sql, std::int64_t limit = 1000, std::chrono::milliseconds deadline = 10s) {
    return reader.query(sql, limit, deadline);
  }
  void expect_refused(const std::string& sql, const std::string& words = "") {
    EXPECT_THAT([&] { query(sql); }, ThrowsMessage<StoreError>(HasSubstr(words))) << sql;
  }
  static std::set<std::string> keys(const json& object) {
    std::set<std::string> keys;
    for (const auto& [key, value] : object.items()) keys.insert(key);
    return keys;
  }

  fusion::testing::TemporaryFolder folder;
  std::string path = (folder / "fusion.db").string();
  ManualClock clock;
  Store store = Store::open(path, clock);
  StoreReader reader = StoreReader::open(path);
  StudyId first{1}, second{2};
};

TEST_F(StoreReaderTest, StudySummarySpeaksTheProtocol) {
  const json studies = reader.studies();
  ASSERT_EQ(studies.size(), 2u);
  EXPECT_EQ(keys(studies[0]), (std::set<std::string>{"id", "name", "state", "error", "priority", "seed", "strategy", "dataset",
                                                     "dataset_digest", "created_ms", "updated_ms", "forked_from", "forked_at", "observed",
                                                     "trials", "best"}));
  EXPECT_EQ(studies[0]["seed"], 18'446'744'073'709'551'615u);
  EXPECT_EQ(studies[0]["strategy"], "random");
  EXPECT_EQ(studies[0]["dataset"], "avmnist");
  EXPECT_EQ(studies[0]["trials"], json::parse(R"({"asked": 12, "queued": 1, "leased": 1, "completed": 9, "failed": 1,
                                                  "pruned": 0, "cancelled": 0, "total": null})"));
  EXPECT_NEAR(studies[0]["best"]["dev_score"].get<double>(), 0.65, 1e-12);
  EXPECT_TRUE(studies[0]["best"]["architecture"].is_array());
  EXPECT_EQ(studies[1]["trials"]["cancelled"], 3);
  EXPECT_TRUE(studies[1]["best"].is_null());
  EXPECT_EQ(studies[1]["state"], "cancelled");
}

TEST_F(StoreReaderTest, OneStudyAloneHasSpecAndLastFit) {
  const json study = reader.study(first).value();
  EXPECT_EQ(study["spec"], fusion::testing::study_spec("first", 1).to_json());
  EXPECT_EQ(study["dataset_spec"], fusion::testing::avmnist_spec().to_json());
  EXPECT_EQ(study["last_fit"]["fit_index"], 2);
  EXPECT_TRUE(study.contains("trials_per_min") && study.contains("eta_s"));
  EXPECT_TRUE(reader.study(second).value()["last_fit"].is_null());
  EXPECT_FALSE(reader.study(StudyId{9}).has_value());
}

TEST_F(StoreReaderTest, TrialSpeaksTheProtocol) {
  const json trial = reader.trial(TrialId{10}).value();
  EXPECT_EQ(keys(trial),
            (std::set<std::string>{"id", "study", "ask_index", "told_index", "architecture", "steps", "seed", "replica", "state", "pruned",
                                   "attempts", "failures", "outcomes", "alone", "dev_score", "test_score", "best_epoch", "train_loss",
                                   "dev_accuracy", "dev_weighted_f1", "dev_macro_f1", "train_s", "parameters", "error",
                                   "facts", "inherited_from", "created_ms", "ended_ms", "attempt_log", "epochs"}));
  EXPECT_EQ(trial["dev_score"], 0.62);
  EXPECT_TRUE(trial["test_score"].is_null());
  EXPECT_EQ(trial["architecture"], to_triplets(fusion::testing::new_trial(9).architecture));
  EXPECT_EQ(trial["seed"], fusion::testing::new_trial(9).seed);
  EXPECT_EQ(trial["facts"], fusion::testing::new_trial(9).facts);
  ASSERT_EQ(trial["attempt_log"].size(), 2u);
  EXPECT_EQ(trial["attempt_log"][0]["outcome"], "completed");
  EXPECT_EQ(trial["attempt_log"][0]["worker_name"], "w1");
  EXPECT_EQ(trial["attempt_log"][0]["torch_version"], "1.13.0");
  EXPECT_EQ(trial["attempt_log"][1]["outcome"], "cancelled");
  EXPECT_EQ(trial["outcomes"], (json{{"failed", 0}, {"oom", 0}, {"preempted", 0}, {"lost", 0}, {"deaths", 0}})) << "the lost one came in after all";
  EXPECT_EQ(reader.trial(TrialId{9}).value()["outcomes"], (json{{"failed", 2}, {"oom", 1}, {"preempted", 0}, {"lost", 0}, {"deaths", 0}}));
  EXPECT_EQ(reader.trial(TrialId{1}).value()["epochs"].size(), 3u);
  EXPECT_TRUE(reader.trial(TrialId{12}).value()["told_index"].is_null());
  EXPECT_FALSE(reader.trial(TrialId{99}).has_value());
}

TEST_F(StoreReaderTest, TrialsComeInTheOrderAskedFor) {
  using Order = TrialQuery::Order;
  const auto column = [](const json& rows, const char* key) {
    std::vector<json> values;
    for (const json& row : rows) values.push_back(row[key]);
    return values;
  };
  const json asked = reader.trials(first, {std::nullopt, Order::asked, 100, 0});
  EXPECT_EQ(asked.size(), 12u);
  const json ended = reader.trials(first, {std::nullopt, Order::ended, 100, 0});
  EXPECT_EQ(column(ended, "told_index"), (std::vector<json>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  const auto best = column(reader.trials(first, {std::nullopt, Order::best, 100, 0}), "dev_score");
  EXPECT_EQ(best.size(), 9u);
  EXPECT_TRUE(std::is_sorted(best.rbegin(), best.rend()));
  EXPECT_EQ(column(reader.trials(first, {TrialState::failed, Order::ended, 100, 0}), "id"), std::vector<json>{9});
  EXPECT_EQ(column(reader.trials(first, {TrialState::queued, Order::asked, 100, 0}), "id"), std::vector<json>{12});
  EXPECT_EQ(column(reader.trials(first, {std::nullopt, Order::asked, 2, 3}), "ask_index"), (std::vector<json>{3, 4}));
  EXPECT_EQ(reader.trials(first, {TrialState::failed, Order::best, 100, 0}).size(), 0u);
  EXPECT_EQ(reader.best(first, 3), reader.trials(first, {std::nullopt, Order::best, 3, 0}));
  EXPECT_EQ(reader.best(first, -1).size(), 0u);
}

TEST_F(StoreReaderTest, TiesAreBrokenByTheOrderOfProposals) {
  const StudyId study = fusion::testing::add_study(store, "ties");
  const auto ids = fusion::testing::add_trials(store, study, 3);
  for (const std::size_t n : {2u, 0u, 1u}) {
    store.lease(ids[n], WorkerId{});
    store.finish(fusion::testing::completed(ids[n], 1, 0.5));
  }
  const json best = reader.best(study, 3);
  for (int n = 0; n < 3; ++n) EXPECT_EQ(best[static_cast<std::size_t>(n)]["ask_index"], n);
}

TEST_F(StoreReaderTest, WhatWasPrunedIsShownButIsNeverTheBest) {
  const StudyId study = fusion::testing::add_study(store, "early");
  const auto ids = fusion::testing::add_trials(store, study, 2);
  for (const TrialId id : ids) store.lease(id, WorkerId{});
  store.finish(fusion::testing::ended(ids[0], 1, Outcome::pruned));
  EXPECT_TRUE(reader.study(study).value()["best"].is_null());
  store.finish(fusion::testing::completed(ids[1], 1, 0.125));  // worse than what the pruned one had
  const json shown = reader.study(study).value();
  EXPECT_EQ(shown["best"]["trial"], ids[1].value);
  EXPECT_EQ(shown["trials"]["completed"], 2);
  EXPECT_EQ(shown["trials"]["pruned"], 1);
  EXPECT_EQ(reader.best(study, 5).size(), 1u);
  const json trials = reader.trials(study, {});
  EXPECT_EQ(trials[0]["pruned"], true);
  EXPECT_EQ(trials[0]["dev_score"], 0.25);
  EXPECT_EQ(trials[1]["pruned"], false);
  const auto value = [&](const std::string& sql) { return query(sql, 10, 5s)["rows"][0][0]; };
  EXPECT_EQ(value("SELECT count(*) FROM leaderboard WHERE study = 'early'"), 1);
  EXPECT_EQ(value("SELECT best_dev_score FROM study_progress WHERE study = 'early'"), 0.125);
  EXPECT_EQ(value("SELECT pruned FROM study_progress WHERE study = 'early'"), 1);
  EXPECT_TRUE(value("SELECT best_so_far FROM history WHERE study = 'early' AND pruned").is_null());
}

TEST_F(StoreReaderTest, FitsWorkersAndEvents) {
  const json fits = reader.fits(first);
  ASSERT_EQ(fits.size(), 3u);
  EXPECT_TRUE(fits[0]["rank_correlation"].is_null());
  EXPECT_EQ(fits[2]["details"]["epochs"], 50);
  const json workers = reader.workers();
  ASSERT_EQ(workers.size(), 1u) << "one has left";
  EXPECT_EQ(workers[0]["name"], "w2");
  EXPECT_EQ(workers[0]["held"], json::array({11}));
  const json events = reader.events(first, 0, 100);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0]["kind"], "study_submitted");
  EXPECT_TRUE(events[0]["trial"].is_null());
  EXPECT_EQ(events[1]["kind"], "result_late");
  EXPECT_THAT(events[1]["text"].get<std::string>(), HasSubstr("accepted"));
  EXPECT_EQ(events[2]["trial"], 10);
  EXPECT_THAT(events[2]["text"].get<std::string>(), HasSubstr("dropped"));
  EXPECT_EQ(reader.events(std::nullopt, events[1]["id"], 100).size(), 2u);
  EXPECT_EQ(reader.events(second, 0, 100).size(), 0u);
}

TEST_F(StoreReaderTest, OnlyNewsIsAnEvent) {
  const StudyId study = fusion::testing::add_study(store, "late");
  const TrialId trial = fusion::testing::add_trials(store, study, 1)[0];
  store.lease(trial, WorkerId{});
  store.set_study_state(study, StudyState::cancelled);
  store.finish(fusion::testing::ended(trial, 1, Outcome::cancelled));  // the worker's answer: what was recorded already
  EXPECT_EQ(reader.events(study, 0, 100).size(), 0u);
  store.finish(fusion::testing::completed(trial, 1, 0.5));
  EXPECT_EQ(reader.events(study, 0, 100).size(), 1u);
}

TEST_F(StoreReaderTest, ReaderSeesWhatWasCommittedAndNothingElse) {
  store.begin_group();
  fusion::testing::add_trials(store, first, 1, 12);
  EXPECT_EQ(reader.trials(first, {}).size(), 12u);
  store.commit_group();
  EXPECT_EQ(reader.trials(first, {}).size(), 13u);
}

TEST_F(StoreReaderTest, WorksWithoutADaemon) {
  { const Store closed = std::move(store); }
  const StoreReader alone = StoreReader::open(path);
  EXPECT_EQ(alone.studies().size(), 2u);
}

// ---- queries of people

TEST_F(StoreReaderTest, QueryAnswersColumnsAndRows) {
  EXPECT_EQ(query("SELECT 1 AS a, 2.5 AS b, 'x' AS c, x'00ff' AS d, NULL AS e, 9e999 AS f"),
            json::parse(R"({"columns": ["a","b","c","d","e","f"], "rows": [[1, 2.5, "x", "00ff", null, null]], "truncated": false})"));
  EXPECT_EQ(query("SELECT 1;  -- a comment behind it is fine\n").at("rows").size(), 1u);
  EXPECT_EQ(query("SELECT cast(x'ff' AS TEXT)").at("rows")[0][0], "\xEF\xBF\xBD") << "JSON is UTF-8";
}

TEST_F(StoreReaderTest, QueryStopsAtTheRowLimit) {
  const json cut = query("SELECT id FROM trials ORDER BY id", 5);
  EXPECT_EQ(cut["rows"].size(), 5u);
  EXPECT_EQ(cut["truncated"], true);
  EXPECT_EQ(query("SELECT id FROM trials", 15)["truncated"], false);
  EXPECT_EQ(query("SELECT id FROM trials", 0)["rows"].size(), 0u);
  EXPECT_THROW(query("SELECT 1", -1), StoreError);
}

TEST_F(StoreReaderTest, QueryThatWritesIsRefused) {
  for (const char* sql :
       {"DELETE FROM trials", "UPDATE studies SET name = 'x'", "INSERT INTO meta VALUES ('a', 'b')", "DROP TABLE trials",
        "CREATE TABLE t (x)", "CREATE TEMP TABLE t (x)", "ATTACH ':memory:' AS other", "ATTACH '/tmp/x.db' AS x", "VACUUM",
        "VACUUM INTO '/tmp/x.db'", "PRAGMA user_version = 7", "PRAGMA journal_mode = DELETE", "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON", "PRAGMA wal_checkpoint", "PRAGMA foreign_keys(0)", "BEGIN", "BEGIN IMMEDIATE",
        "SAVEPOINT s", "COMMIT", "DETACH main", "ANALYZE", "REINDEX", "EXPLAIN DELETE FROM trials",
        "UPDATE sqlite_master SET name = 'x'", "WITH x AS (SELECT 1) DELETE FROM trials", "SELECT load_extension('x')"}) {
    expect_refused(sql);
  }
  EXPECT_EQ(reader.studies().size(), 2u) << "the reader works on";
}

TEST_F(StoreReaderTest, OnlyOneStatementIsTaken) {
  expect_refused("SELECT 1; SELECT 2", "a second one follows: SELECT 2");
  expect_refused("SELECT 1; DELETE FROM trials");
  expect_refused("SELECT 1; nonsense");
  expect_refused("", "got none");
  expect_refused("  -- only a comment", "got none");
  expect_refused("SELEC 1", "syntax error");
  expect_refused("SELECT * FROM nowhere", "no such table: nowhere");
}

TEST_F(StoreReaderTest, PragmasThatOnlyTellAreAllowed) {
  EXPECT_GT(query("PRAGMA table_info(trials)")["rows"].size(), 20u);
  EXPECT_EQ(query("PRAGMA user_version")["rows"][0][0], newest_schema());
  EXPECT_GT(query("SELECT name FROM pragma_table_info('trials')")["rows"].size(), 20u);
  EXPECT_GT(query("SELECT sql FROM sqlite_schema")["rows"].size(), 10u);
  EXPECT_GT(query("EXPLAIN QUERY PLAN SELECT * FROM leaderboard")["rows"].size(), 0u);
}

TEST_F(StoreReaderTest, RunawayQueryStopsAtItsDeadline) {
  const std::string endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
  EXPECT_THAT([&] { query(endless, 10, 50ms); }, ThrowsMessage<StoreError>(HasSubstr("deadline of 50 ms")));
  EXPECT_THAT([&] { query(endless, 10, 0ms); }, ThrowsMessage<StoreError>(HasSubstr("deadline")));
  EXPECT_EQ(query("SELECT count(*) FROM trials")["rows"][0][0], 15) << "the next one is not stopped";
  EXPECT_EQ(reader.trials(first, {}).size(), 12u);
}

TEST_F(StoreReaderTest, QueryThatWouldFillTheMemoryIsCut) {
  expect_refused("SELECT zeroblob(1000000000)", "too big");
  const json cut = query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT hex(zeroblob(1000000)) FROM n",
                         1'000'000, 60s);
  EXPECT_EQ(cut["truncated"], true);
  EXPECT_LT(cut["rows"].size(), 100u);
}

TEST_F(StoreReaderTest, QueryNeverDelaysTheWriter) {
  StoreReader other = StoreReader::open(path);
  const std::string endless = "WITH RECURSIVE n(i) AS (SELECT id FROM trials UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
  // The deadline strikes while the writer has committed in between.
  EXPECT_THROW(query(endless, 10, 20ms), StoreError);
  EXPECT_NO_THROW(fusion::testing::add_trials(store, first, 1, 12));
  EXPECT_EQ(other.trials(first, {}).size(), 13u);
}

// ---- plans: what the dashboard asks for must not walk over 100,000 trials

TEST_F(StoreReaderTest, FrequentQueriesUseTheirIndexAndSortNothing) {
  const auto plan = [&](const std::string& sql) {
    std::string text;
    const json answer = query("EXPLAIN QUERY PLAN " + sql);
    for (const json& row : answer["rows"]) text += row[3].get<std::string>() + "\n";
    return text;
  };
  const auto expect_plan = [&](const std::string& sql, const std::string& index) {
    const std::string text = plan(sql);
    EXPECT_THAT(text, HasSubstr(index)) << sql;
    EXPECT_THAT(text, ::testing::Not(HasSubstr("TEMP B-TREE"))) << sql;
  };
  expect_plan("SELECT * FROM trials WHERE study_id = 1 AND dev_score IS NOT NULL AND NOT pruned ORDER BY dev_score DESC, ask_index LIMIT 5",
              "trials_best");
  expect_plan("SELECT count(*) FROM trials WHERE study_id = 1 AND pruned", "trials_pruned");
  expect_plan("SELECT * FROM trials WHERE study_id = 1 AND +state = 'completed' AND dev_score IS NOT NULL AND NOT pruned"
              " ORDER BY dev_score DESC, ask_index LIMIT 5", "trials_best");
  expect_plan("SELECT * FROM trials WHERE study_id = 1 AND told_index IS NOT NULL ORDER BY told_index LIMIT 5", "trials_told");
  expect_plan("SELECT * FROM trials WHERE study_id = 1 AND state = 'queued' ORDER BY ask_index LIMIT 5", "trials_state");
  expect_plan("SELECT state, count(*) FROM trials WHERE study_id = 1 GROUP BY state", "COVERING INDEX trials_state");
  expect_plan("SELECT count(*) FROM trials WHERE study_id = 1 AND ended_ms > 5", "trials_ended");
  expect_plan("SELECT max(told_index) FROM trials WHERE study_id = 1 AND told_index IS NOT NULL", "trials_told");
  expect_plan("SELECT * FROM events WHERE id > 3 AND study_id = 1 ORDER BY id LIMIT 5", "events_study");
}

}  // namespace
}  // namespace fusion
