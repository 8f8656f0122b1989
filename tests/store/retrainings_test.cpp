// Retrainings in the store: on disk and in memory, every event in every state against a small model of the rules, what readers see.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "store/database.h"
#include "store/store_reader.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using nlohmann::json;
using fusion::testing::add_study;
using fusion::testing::add_trials;
using fusion::testing::new_retraining;
using fusion::testing::retrained;
using fusion::testing::retraining_ended;
using fusion::testing::retraining_epoch;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class RetrainingsTest : public ::testing::TestWithParam<bool> {
 protected:
  RetrainingsTest() {
    study = add_study(store);
    trial = add_trials(store, study, 1).at(0);
    worker = store.join_worker({{}, "w", "node", "cpu", "0.1.0", "1.13.0", 1, 1});
  }
  RetrainingId create(int retries = 1) {
    NewRetraining given = new_retraining(study, trial);
    given.retries = retries;
    return store.create_retraining(given).id;
  }
  RetrainingState state(RetrainingId id) { return store.retraining(id)->state; }
  StoreReader reader() { return StoreReader::open(path); }

  fusion::testing::TemporaryFolder folder;
  std::string path = GetParam() ? (folder / "fusion.db").string() : ":memory:";
  ManualClock clock;
  Store store = Store::open(path, clock);
  StudyId study;
  TrialId trial;
  WorkerId worker;
};
INSTANTIATE_TEST_SUITE_P(, RetrainingsTest, ::testing::Bool(), [](const auto& on_disk) { return on_disk.param ? "OnDisk" : "InMemory"; });

TEST_P(RetrainingsTest, IsStoredAsGivenInAFolderOfItsOwn) {
  const NewRetraining given = new_retraining(study, trial, HeadKind::bert);
  const RetrainingRecord first = store.create_retraining(given);
  EXPECT_EQ(first.study, study);
  EXPECT_EQ(first.trial, trial);
  EXPECT_EQ(first.state, RetrainingState::queued);
  EXPECT_EQ(first.job.architecture, given.architecture);
  EXPECT_EQ(first.job.options, given.options);
  EXPECT_EQ(first.job.seed, given.seed);
  EXPECT_EQ(first.job.lineage, given.lineage);
  EXPECT_EQ(first.job.dataset_digest, given.dataset.digest);
  EXPECT_EQ(first.job.attempt, 0);
  EXPECT_THAT(first.job.folder, HasSubstr("/data/artifacts/retraining-1-"));
  const RetrainingRecord second = store.create_retraining(given);
  EXPECT_NE(first.job.folder.substr(first.job.folder.rfind('-')), second.job.folder.substr(second.job.folder.rfind('-')));
  EXPECT_EQ(store.open_retrainings().size(), 2u);
  EXPECT_THROW(store.create_retraining(new_retraining(study, TrialId{99})), StoreError);
  EXPECT_THROW(store.create_retraining(new_retraining(study, {})), StoreError) << "a study without a trial";
  EXPECT_NO_THROW(store.create_retraining(new_retraining()));
}

TEST_P(RetrainingsTest, EpochsAreKeyedByAttemptAndNeverReplaced) {
  const RetrainingId id = create();
  EXPECT_FALSE(store.add_retraining_epoch(id, 1, retraining_epoch(1))) << "that attempt never began";
  store.lease_retraining(id, worker);
  EXPECT_TRUE(store.add_retraining_epoch(id, 1, retraining_epoch(1)));
  EXPECT_FALSE(store.add_retraining_epoch(id, 1, retraining_epoch(1)));
  store.finish_retraining(retraining_ended(id, 1, Outcome::lost));
  EXPECT_TRUE(store.add_retraining_epoch(id, 1, retraining_epoch(2))) << "what a lost attempt did is welcome";
  store.lease_retraining(id, worker);
  EXPECT_TRUE(store.add_retraining_epoch(id, 2, retraining_epoch(2)));
  if (GetParam()) {
    EXPECT_EQ(reader().retraining(id)->at("epochs").size(), 3u);
    const json rows = reader().query("SELECT attempt, epoch, counts FROM retraining_curves", 10, std::chrono::seconds(5))["rows"];
    EXPECT_EQ(rows, json::parse("[[1,1,1],[1,2,0],[2,2,1]]"));
  }
}

TEST_P(RetrainingsTest, CompletionStoresScoreEvaluationAndArtifactsAtOnce) {
  const RetrainingId id = create();
  store.lease_retraining(id, worker);
  RetrainingOutcome outcome = retrained(id, 1, 0.875);
  outcome.score->artifacts.push_back(outcome.score->artifacts[0]);
  EXPECT_THROW(store.finish_retraining(outcome), StoreError) << "a name twice";
  outcome.score->artifacts.pop_back();
  outcome.score->dev_score = 1.5;
  EXPECT_THAT([&] { store.finish_retraining(outcome); }, ThrowsMessage<StoreError>(HasSubstr("needs a dev_score in [0, 1]")));
  EXPECT_EQ(state(id), RetrainingState::leased) << "nothing of it was stored";
  EXPECT_TRUE(store.finish_retraining(retrained(id, 1, 0.875)).accepted);
  EXPECT_FALSE(store.finish_retraining(retrained(id, 1, 0.5)).accepted) << "a result is stored once";
  EXPECT_EQ(store.retraining(id)->dev_score, 0.875);
  if (!GetParam()) return;
  const json stored = *reader().retraining(id);
  EXPECT_EQ(stored["evaluation"]["dev"]["confusion"], json::parse("[[1,0],[0,1]]"));
  EXPECT_EQ(stored["artifacts"][1]["name"], "model.pt");
  EXPECT_EQ(stored["artifacts"][1]["bytes"], 4096);
  EXPECT_EQ(stored["parameters"], 123456);
  EXPECT_EQ(stored["seed"], (std::uint64_t{1} << 53) - 1);
  EXPECT_EQ(stored["options"]["head"], "linear");
  Database database(path, Database::Access::create);
  EXPECT_THROW(database.execute("UPDATE retrainings SET dev_score = 1"), StoreError);
  EXPECT_THROW(database.execute("UPDATE artifacts SET bytes = 1"), StoreError);
}

TEST_P(RetrainingsTest, ALostAttemptIsBelievedOnlyWhileNoOtherBegan) {
  const RetrainingId late = create(), overtaken = create();
  for (const RetrainingId id : {late, overtaken}) {
    store.lease_retraining(id, worker);
    EXPECT_EQ(store.finish_retraining(retraining_ended(id, 1, Outcome::lost)).state, RetrainingState::queued);
  }
  EXPECT_FALSE(store.finish_retraining(retraining_ended(late, 1, Outcome::failed)).accepted);
  EXPECT_TRUE(store.finish_retraining(retrained(late, 1, 0.5)).accepted);
  store.lease_retraining(overtaken, worker);
  EXPECT_FALSE(store.finish_retraining(retrained(overtaken, 1, 0.5)).accepted) << "the folder is the second attempt's now";
  EXPECT_TRUE(store.finish_retraining(retrained(overtaken, 2, 0.5)).accepted);
}

TEST_P(RetrainingsTest, APausedOneKeepsItsAttemptUntilTheWorkerGivesItBack) {
  const RetrainingId id = create();
  store.lease_retraining(id, worker);
  EXPECT_TRUE(store.pause_retraining(id).changed);
  EXPECT_FALSE(store.pause_retraining(id).changed);
  EXPECT_EQ(store.resume_retraining(id).state, RetrainingState::queued);
  EXPECT_EQ(store.lease_retraining(id, worker), std::nullopt) << "the first attempt has not ended";
  store.pause_retraining(id);
  EXPECT_EQ(store.finish_retraining(retraining_ended(id, 1, Outcome::preempted)).state, RetrainingState::paused);
  EXPECT_EQ(store.lease_retraining(id, worker), std::nullopt);
  EXPECT_TRUE(store.resume_retraining(id).changed);
  EXPECT_EQ(store.lease_retraining(id, worker), 2);
}

TEST_P(RetrainingsTest, AfterARestartWhatWasLeasedIsQueuedAndMayBeReadopted) {
  const RetrainingId id = create(), paused = create();
  store.lease_retraining(id, worker);
  store.lease_retraining(paused, worker);
  store.pause_retraining(paused);
  EXPECT_EQ(store.requeue_leased_retrainings(), 2);
  EXPECT_EQ(state(paused), RetrainingState::paused);
  EXPECT_FALSE(store.readopt_retraining(id, 2, worker));
  EXPECT_TRUE(store.readopt_retraining(id, 1, worker));
  EXPECT_FALSE(store.readopt_retraining(id, 1, worker));
  EXPECT_FALSE(store.readopt_retraining(paused, 1, worker));
  EXPECT_EQ(state(id), RetrainingState::leased);
}

// ---- every history against the rules

struct Model {
  RetrainingState state = RetrainingState::queued;
  int failures = 0;
  std::vector<std::optional<Outcome>> attempts;

  int attempt() const { return static_cast<int>(attempts.size()); }
  bool open() const { return !attempts.empty() && !attempts.back(); }
  bool lease() {
    if (state != RetrainingState::queued || open()) return false;
    state = RetrainingState::leased;
    attempts.emplace_back();
    return true;
  }
  bool readopt(int number) {
    if (state != RetrainingState::queued || number != attempt() || number < 1 || attempts.back() != Outcome::lost) return false;
    state = RetrainingState::leased;
    attempts.back().reset();
    return true;
  }
  bool finish(int number, Outcome outcome) {
    if (is_final(state) || number < 1 || number > attempt() || number != attempt()) return false;
    if (outcome != Outcome::completed && !open()) return false;
    attempts.back() = outcome;
    if (outcome == Outcome::completed) state = RetrainingState::completed;
    else if (outcome == Outcome::cancelled) state = RetrainingState::cancelled;
    else {
      const bool failure = outcome == Outcome::failed || outcome == Outcome::oom;
      failures += failure ? 1 : 0;
      if (state == RetrainingState::leased) state = failures > 1 ? RetrainingState::failed : RetrainingState::queued;
    }
    return true;
  }
  bool change(RetrainingState to) {
    const bool allowed = to == RetrainingState::queued ? state == RetrainingState::paused : !is_final(state) && state != to;
    if (!allowed) return false;
    if (to == RetrainingState::cancelled && open()) attempts.back() = Outcome::cancelled;
    state = to;
    return true;
  }
};

TEST_P(RetrainingsTest, RandomHistoriesFollowTheRules) {
  constexpr unsigned kSeed = 20'260;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937 random(kSeed);
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  constexpr Outcome kOutcomes[] = {Outcome::completed, Outcome::failed, Outcome::oom, Outcome::preempted, Outcome::lost, Outcome::cancelled};
  store.begin_group();
  for (int history = 0; history < 150; ++history) {
    const RetrainingId id = create(1);
    Model model;
    for (int step = 0; step < 12; ++step) {
      const RetrainingState before = model.state;
      const int number = std::max(1, model.attempt() - pick(2));
      bool expected = false, happened = false;
      switch (pick(8)) {
        case 0:
        case 1: expected = model.lease(), happened = store.lease_retraining(id, worker).has_value(); break;
        case 2: expected = model.readopt(number), happened = store.readopt_retraining(id, number, worker); break;
        case 3: expected = model.change(RetrainingState::paused), happened = store.pause_retraining(id).changed; break;
        case 4: expected = model.change(RetrainingState::queued), happened = store.resume_retraining(id).changed; break;
        case 5:
          if (pick(6) != 0) continue;
          expected = model.change(RetrainingState::cancelled), happened = store.cancel_retraining(id).changed;
          break;
        default: {
          const Outcome outcome = kOutcomes[pick(6)];
          expected = model.finish(number, outcome);
          happened = store.finish_retraining(retraining_ended(id, number, outcome)).accepted;
        }
      }
      ASSERT_EQ(happened, expected) << "history " << history << " step " << step << " from " << name_of(before);
      const RetrainingRecord record = *store.retraining(id);
      ASSERT_EQ(record.state, model.state);
      ASSERT_EQ(record.failures, model.failures);
      ASSERT_EQ(record.job.attempt, model.attempt());
      ASSERT_TRUE(record.state == before || can_follow(before, record.state)) << name_of(before) << " to " << name_of(record.state);
    }
  }
  store.commit_group();
}

TEST_P(RetrainingsTest, ReadersListTheBestFirstAndFilter) {
  if (!GetParam()) GTEST_SKIP() << "a reader needs a file";
  const double scores[] = {0.5, 0.75, 0.625};
  for (const double score : scores) {
    const RetrainingId id = create();
    store.lease_retraining(id, worker);
    store.finish_retraining(retrained(id, 1, score));
  }
  const RetrainingId waiting = store.create_retraining(new_retraining({}, {}, HeadKind::mmtm)).id;
  RetrainingQuery query;
  query.best = true;
  const json best = reader().retrainings(query);
  ASSERT_EQ(best.size(), 3u);
  EXPECT_EQ(best[0]["id"], 2);
  EXPECT_EQ(best[2]["dev_score"], 0.5);
  query.best = false;
  EXPECT_EQ(reader().retrainings(query)[0]["id"], waiting.value);
  query.head = HeadKind::mmtm;
  EXPECT_EQ(reader().retrainings(query).size(), 1u);
  query = {};
  query.state = RetrainingState::completed;
  query.trial = trial;
  EXPECT_EQ(reader().retrainings(query).size(), 3u);
  const json board = reader().query("SELECT retraining FROM retrainings_board", 10, std::chrono::seconds(5))["rows"];
  EXPECT_EQ(board, json::parse("[[2],[3],[1],[4]]"));
}

}  // namespace
}  // namespace fusion
