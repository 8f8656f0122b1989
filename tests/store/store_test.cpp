#include "store/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "store/database.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using fusion::testing::add_study;
using fusion::testing::add_trials;
using fusion::testing::completed;
using fusion::testing::ended;
using fusion::testing::new_trial;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

enum class Place { memory, disk };

/// The contract of Store, in memory and on disk.
class StoreTest : public ::testing::TestWithParam<Place> {
 protected:
  std::string path() const { return GetParam() == Place::memory ? ":memory:" : (folder_ / "fusion.db").string(); }
  /// Closes and opens again; in memory that would lose everything, so there the store just goes on.
  void restart() {
    if (GetParam() == Place::memory) return;
    { const Store closed = std::move(store); }
    store = Store::open(path(), clock);
  }

  fusion::testing::TemporaryFolder folder_;
  ManualClock clock;
  Store store = Store::open(path(), clock);
};
INSTANTIATE_TEST_SUITE_P(, StoreTest, ::testing::Values(Place::memory, Place::disk),
                         [](const auto& place) { return place.param == Place::memory ? "Memory" : "Disk"; });

TEST_P(StoreTest, StudyComesBackAsItWasGiven) {
  const StudyId id = add_study(store);
  restart();
  const StudyRecord study = store.study(id).value();
  EXPECT_EQ(study.spec.to_json(), fusion::testing::study_spec().to_json());
  EXPECT_EQ(study.spec.seed, std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(study.dataset, fusion::testing::avmnist_spec());
  EXPECT_EQ(study.dataset_path, "/data/avmnist/features/features.json");
  EXPECT_EQ(study.state, StudyState::running);
  EXPECT_EQ(study.created, clock.unix_ms());
  EXPECT_EQ(store.studies().size(), 1u);
  EXPECT_FALSE(store.study(StudyId{99}).has_value());
}

TEST_P(StoreTest, StudyThatCouldNotBeReadBackIsRefused) {
  StudySpec spec = fusion::testing::study_spec();
  spec.name = "";
  spec.retries.failures = spec.retries.failed = spec.retries.oom = -3;
  EXPECT_THAT([&] { store.create_study(spec, fusion::testing::avmnist_spec(), "/f"); },
              ThrowsMessage<StoreError>(::testing::AllOf(HasSubstr("/name"), HasSubstr("/retries"))));
  EXPECT_TRUE(store.studies().empty());
}

TEST_P(StoreTest, StudyStatesChangeUntilTheyAreFinal) {
  for (const auto& [last, last_name] : EnumNames<StudyState>::kTable) {
    for (const auto& [next, next_name] : EnumNames<StudyState>::kTable) {
      const StudyId id = add_study(store, std::string(last_name));
      store.set_study_state(id, last, "first");
      const bool is_last = last == StudyState::completed || last == StudyState::cancelled;
      EXPECT_EQ(store.set_study_state(id, next, "then"), !is_last && next != last) << last_name << " to " << next_name;
      EXPECT_EQ(store.study(id)->state, is_last ? last : next);
    }
  }
  EXPECT_FALSE(store.set_study_state(StudyId{12345}, StudyState::paused));
}

TEST_P(StoreTest, TrialsComeBackInTheOrderOfProposals) {
  const StudyId study = add_study(store);
  NewTrial odd = new_trial(1);
  odd.seed = std::numeric_limits<std::uint64_t>::max() - 4;
  odd.facts = {{"text", "ä \"quoted\""}, {"prediction", 0.125}};
  store.add_trials(study, std::vector{new_trial(2), odd, new_trial(0)});
  restart();
  const auto trials = store.trials(study);
  ASSERT_EQ(trials.size(), 3u);
  for (std::int64_t n = 0; n < 3; ++n) {
    const Trial& trial = trials[static_cast<std::size_t>(n)];
    EXPECT_EQ(trial.ask_index, n);
    EXPECT_EQ(trial.architecture, new_trial(n).architecture);
    EXPECT_EQ(trial.state, TrialState::queued);
    EXPECT_EQ(trial.told_index, -1);
    EXPECT_EQ(trial.attempt, 0);
  }
  EXPECT_EQ(trials[1].seed, odd.seed);
  EXPECT_EQ(nlohmann::json::parse(trials[1].facts), odd.facts);
  EXPECT_EQ(trials[0].seed, new_trial(0).seed);
  EXPECT_EQ(store.trial(trials[1].id)->ask_index, 1);
  EXPECT_FALSE(store.trial(TrialId{4711}).has_value());
}

TEST_P(StoreTest, ProposalsFollowThoseThatAreThereWithoutAGap) {
  const StudyId study = add_study(store);
  EXPECT_THAT([&] { add_trials(store, study, 1, 1); }, ThrowsMessage<StoreError>(HasSubstr("ask_index 1 cannot be added; expected 0")));
  add_trials(store, study, 2);
  store.begin_group();
  store.begin_group();
  NewTrial twin = new_trial(0);
  twin.ask_index = 2;
  EXPECT_THROW(store.add_trials(study, std::vector{twin}), StoreError) << "this one fails alone";
  EXPECT_THAT([&] { add_trials(store, study, 2, 3); }, ThrowsMessage<StoreError>(HasSubstr("expected 2 to 3")));
  store.commit_group();
  store.commit_group();
  EXPECT_EQ(add_trials(store, study, 3, 2).size(), 3u);
}

TEST_P(StoreTest, ProposalThatIsThereAlreadyIsRefusedWithItsWholeBatch) {
  const StudyId study = add_study(store);
  add_trials(store, study, 2);
  NewTrial same_place = new_trial(5);
  same_place.ask_index = 1;
  NewTrial same_architecture = new_trial(1);
  same_architecture.ask_index = 2;
  EXPECT_THAT([&] { store.add_trials(study, std::vector{new_trial(3), same_place}); },
              ThrowsMessage<StoreError>(HasSubstr("ask_index 1")));
  EXPECT_THAT([&] { store.add_trials(study, std::vector{new_trial(3), same_architecture}); },
              ThrowsMessage<StoreError>(HasSubstr(canonical_text(same_architecture.architecture))));
  EXPECT_EQ(store.trials(study).size(), 2u);
  same_architecture.replica = 1;
  EXPECT_EQ(store.add_trials(study, std::vector{same_architecture}).size(), 1u);
  EXPECT_EQ(add_trials(store, add_study(store, "other"), 2).size(), 2u) << "another study may have the same";
}

TEST_P(StoreTest, NoTrialsForAStudyThatIsOverOrUnknown) {
  const StudyId study = add_study(store);
  EXPECT_THAT([&] { add_trials(store, StudyId{77}, 1); }, ThrowsMessage<StoreError>(HasSubstr("study 77 is unknown")));
  store.set_study_state(study, StudyState::cancelled);
  EXPECT_THAT([&] { add_trials(store, study, 1); }, ThrowsMessage<StoreError>(HasSubstr("study 1 is cancelled")));
}

TEST_P(StoreTest, LeaseBeginsTheNextAttempt) {
  const StudyId study = add_study(store);
  const TrialId trial = add_trials(store, study, 1)[0];
  const WorkerId worker = store.join_worker({{}, "w", "h", "cpu", "0.1.0", "1.13.0", 1, 1});
  EXPECT_EQ(store.lease(trial, worker), 1);
  EXPECT_EQ(store.lease(trial, worker), std::nullopt);
  EXPECT_EQ(store.trial(trial)->state, TrialState::leased);
  store.finish(ended(trial, 1, Outcome::preempted));
  EXPECT_EQ(store.lease(trial, worker), 2);
  EXPECT_EQ(store.trial(trial)->attempt, 2);
  EXPECT_EQ(store.lease(TrialId{999}, worker), std::nullopt);
}

TEST_P(StoreTest, LeaseToAWorkerThatNeverJoinedIsUndone) {
  const TrialId trial = add_trials(store, add_study(store), 1)[0];
  EXPECT_THROW(store.lease(trial, WorkerId{55}), StoreError);
  EXPECT_EQ(store.trial(trial)->state, TrialState::queued);
  EXPECT_EQ(store.lease(trial, WorkerId{}), 1);
}

TEST_P(StoreTest, ScoreComesBackAsItWasGiven) {
  const TrialId trial = add_trials(store, add_study(store), 1)[0];
  store.lease(trial, WorkerId{});
  TrialOutcome outcome = completed(trial, 1, 0.87654321);
  outcome.score->test_score = 0.1;
  const FinishResult result = store.finish(outcome);
  EXPECT_TRUE(result.accepted);
  EXPECT_EQ(result.state, TrialState::completed);
  EXPECT_EQ(result.told_index, 0);
  EXPECT_EQ(result.ask_index, 0);
  EXPECT_EQ(result.study, StudyId{1});
  restart();
  EXPECT_EQ(store.trial(trial)->score, outcome.score);
  EXPECT_EQ(store.trial(trial)->told_index, 0);
}

TEST_P(StoreTest, LossThatIsNoNumberIsKeptAsSuch) {
  const TrialId trial = add_trials(store, add_study(store), 1)[0];
  store.lease(trial, WorkerId{});
  EXPECT_TRUE(store.add_epoch(trial, 1, {1, std::nan(""), 0.1, 1e-3, 0.5}));
  TrialOutcome outcome = completed(trial, 1, 0.1);
  outcome.score->train_loss = std::nan("");
  store.finish(outcome);
  EXPECT_TRUE(std::isnan(store.trial(trial)->score->train_loss));
}

TEST_P(StoreTest, CompletedNeedsAScore) {
  const TrialId trial = add_trials(store, add_study(store), 1)[0];
  store.lease(trial, WorkerId{});
  TrialOutcome outcome = completed(trial, 1, 0.5);
  outcome.score.reset();
  EXPECT_THAT([&] { store.finish(outcome); }, ThrowsMessage<StoreError>(HasSubstr("got none")));
  EXPECT_THROW(store.finish(completed(trial, 1, std::nan(""))), StoreError);
  EXPECT_THROW(store.finish(completed(trial, 1, 1.5)), StoreError);
  EXPECT_EQ(store.trial(trial)->state, TrialState::leased);
}

TEST_P(StoreTest, FailuresAreRetriedAsOftenAsTheStudySays) {
  const TrialId trial = add_trials(store, add_study(store, "demo", 2), 1)[0];
  for (int attempt = 1; attempt <= 4; ++attempt) {
    ASSERT_EQ(store.lease(trial, WorkerId{}), attempt);
    const FinishResult result =
        store.finish(ended(trial, attempt, attempt % 2 == 0 ? Outcome::oom : Outcome::failed, "e" + std::to_string(attempt)));
    EXPECT_TRUE(result.accepted);
    EXPECT_EQ(result.requeued, attempt < 4);
    EXPECT_EQ(result.told_index, attempt < 4 ? -1 : 0);
    EXPECT_EQ(store.trial(trial)->failures, attempt < 2 ? attempt : attempt - 1) << "the first oom is free";
    EXPECT_EQ(store.trial(trial)->error, "e" + std::to_string(attempt));
  }
  EXPECT_EQ(store.trial(trial)->state, TrialState::failed);
}

TEST_P(StoreTest, LostAndPreemptedUseUpNoRetry) {
  const TrialId trial = add_trials(store, add_study(store, "demo", 0), 1)[0];
  for (int attempt = 1; attempt <= 6; ++attempt) {
    ASSERT_EQ(store.lease(trial, WorkerId{}), attempt);
    EXPECT_TRUE(store.finish(ended(trial, attempt, attempt % 2 ? Outcome::lost : Outcome::preempted, "gone")).requeued);
  }
  EXPECT_EQ(store.trial(trial)->failures, 0);
  EXPECT_EQ(store.trial(trial)->error, "");
}

TEST_P(StoreTest, EachClassOfFailureMayHaveABudgetOfItsOwn) {
  StudySpec spec = fusion::testing::study_spec();
  spec.retries = {3, 1, 2, 8};  // failed 1, oom 2
  const StudyId study = store.create_study(spec, fusion::testing::avmnist_spec(), "/f");
  const auto end_all = [&](TrialId trial, std::vector<Outcome> outcomes) {
    TrialState state = TrialState::queued;
    for (const Outcome outcome : outcomes) state = store.finish(ended(trial, store.lease(trial, WorkerId{}).value(), outcome, "x")).state;
    return state;
  };
  using enum Outcome;
  const auto trials = add_trials(store, study, 3);
  EXPECT_EQ(end_all(trials[0], {failed, oom, oom, oom}), TrialState::queued);
  EXPECT_EQ(end_all(trials[0], {oom}), TrialState::failed);
  EXPECT_EQ(end_all(trials[1], {oom, failed}), TrialState::queued);
  EXPECT_EQ(end_all(trials[1], {failed}), TrialState::failed);
  EXPECT_EQ(store.study(study)->spec.retries, spec.retries);
}

TEST_P(StoreTest, WhoDiesWithItsWorkerIsTrainedAloneAndAfterTooManyDeathsFailed) {
  StudySpec spec = fusion::testing::study_spec();
  spec.retries = RetryBudget::of(0);
  spec.retries.lost = 2;
  const StudyId study = store.create_study(spec, fusion::testing::avmnist_spec(), "/f");
  const TrialId trial = add_trials(store, study, 1)[0];
  for (int attempt = 1; attempt <= 6; ++attempt) {
    ASSERT_EQ(store.lease(trial, WorkerId{}), attempt);
    const bool innocent = attempt == 1 || attempt == 4;  // the daemon was restarted, say
    const FinishResult result = store.finish(ended(trial, attempt, Outcome::lost, "silence"), !innocent);
    EXPECT_EQ(result.alone, attempt >= 2);
    EXPECT_EQ(store.trial(trial)->deaths, attempt < 3 ? 0 : attempt < 5 ? 1 : attempt - 3) << "the first is a suspicion";
    EXPECT_EQ(result.state, attempt < 6 ? TrialState::queued : TrialState::failed);
  }
  EXPECT_THAT(store.trial(trial)->error, AllOf(HasSubstr("its worker died 3 times while it trained nothing but this trial"),
                                               HasSubstr("allows 2 (/retries/lost)"), HasSubstr("silence")));
  EXPECT_EQ(store.trial(trial)->failures, 0);
  EXPECT_EQ(store.trial(trial)->told_index, 0);
}

TEST_P(StoreTest, ASurvivorIsSuspectedNoMoreAndAWorkerThatComesBackProvesALossWrong) {
  const auto trials = add_trials(store, add_study(store), 2);
  for (const TrialId trial : trials) {
    store.lease(trial, WorkerId{});
    EXPECT_TRUE(store.finish(ended(trial, 1, Outcome::lost, "silence"), true).alone);
    store.lease(trial, WorkerId{});
  }
  EXPECT_FALSE(store.finish(ended(trials[0], 2, Outcome::failed, "NaN")).alone);
  store.finish(ended(trials[1], 2, Outcome::lost, "silence"), true);
  EXPECT_EQ(store.trial(trials[1])->deaths, 1);
  EXPECT_TRUE(store.readopt(trials[1], 2, WorkerId{}));
  EXPECT_EQ(store.trial(trials[1])->deaths, 0);
  store.finish(ended(trials[1], 2, Outcome::lost, "silence"), true);
  EXPECT_TRUE(store.finish(completed(trials[1], 2, 0.5)).accepted) << "late";
  EXPECT_EQ(store.trial(trials[1])->deaths, 0);
  EXPECT_EQ(store.trial(trials[1])->lost, 1);
}

class PauseTest : public StoreTest {
 protected:
  void begin(int failures, int within_s) {
    StudySpec spec = fusion::testing::study_spec("failing", 0);
    spec.pause_on = {failures, within_s};
    spec.retries.lost = 0;
    study = store.create_study(spec, fusion::testing::avmnist_spec(), "/f");
    trials = add_trials(store, study, 30);
  }
  std::optional<std::string> end_next(Outcome outcome, bool died = false) {
    clock.advance(std::chrono::seconds(1));
    const TrialId trial = trials.at(next++);
    store.finish(ended(trial, store.lease(trial, WorkerId{}).value(), outcome, "the loss became NaN"), died);
    return store.pause_if_failing(study);
  }
  StudyId study;
  std::vector<TrialId> trials;
  std::size_t next = 0;
};
INSTANTIATE_TEST_SUITE_P(, PauseTest, ::testing::Values(Place::disk), [](const auto&) { return "Disk"; });

TEST_P(PauseTest, FailuresInARowPauseTheStudyWithASentenceAndResumingCountsAnew) {
  begin(3, 60);
  EXPECT_FALSE(end_next(Outcome::failed));
  EXPECT_FALSE(end_next(Outcome::failed));
  EXPECT_FALSE(end_next(Outcome::completed)) << "in between";
  EXPECT_FALSE(end_next(Outcome::failed));
  EXPECT_FALSE(end_next(Outcome::oom));
  restart();
  const auto why = end_next(Outcome::failed);
  ASSERT_TRUE(why);
  EXPECT_THAT(*why, AllOf(HasSubstr("3 failures in a row within 2 s"), HasSubstr("fewer than 3 within 60 s"),
                          HasSubstr("the last one ended failed: the loss became NaN")));
  EXPECT_EQ(store.study(study)->state, StudyState::paused);
  EXPECT_EQ(store.study(study)->error, *why);
  EXPECT_FALSE(end_next(Outcome::failed)) << "it is paused already";
  EXPECT_TRUE(store.set_study_state(study, StudyState::running));
  EXPECT_EQ(store.study(study)->error, "");
  EXPECT_FALSE(end_next(Outcome::failed));
  EXPECT_FALSE(end_next(Outcome::failed));
  EXPECT_TRUE(end_next(Outcome::failed));
}

TEST_P(PauseTest, OldFailuresAreForgottenAndZeroTurnsItOff) {
  begin(3, 60);
  end_next(Outcome::failed);
  end_next(Outcome::failed);
  clock.advance(std::chrono::seconds(60));
  EXPECT_FALSE(end_next(Outcome::failed));
  next = 0;
  begin(0, 60);
  for (int n = 0; n < 20; ++n) EXPECT_FALSE(end_next(Outcome::failed));
}

TEST_P(PauseTest, WorkersThatDieTogetherCountOnce) {
  begin(2, 600);
  for (int n = 0; n < 9; ++n) {
    const TrialId trial = trials.at(next++);
    store.finish(ended(trial, store.lease(trial, WorkerId{}).value(), Outcome::lost, "silence"), true);
  }
  EXPECT_FALSE(store.pause_if_failing(study)) << "nine in one moment";
  EXPECT_FALSE(end_next(Outcome::lost, false)) << "lost, but nobody died";
  clock.advance(std::chrono::seconds(20));
  EXPECT_TRUE(end_next(Outcome::lost, true));
}

TEST_P(StoreTest, LateResultWinsIfNobodyFinishedFirst) {
  const TrialId trial = add_trials(store, add_study(store), 1)[0];
  store.lease(trial, WorkerId{});
  store.finish(ended(trial, 1, Outcome::lost));
  store.lease(trial, WorkerId{});
  EXPECT_FALSE(store.finish(ended(trial, 1, Outcome::failed, "late failure")).accepted) << "says nothing about attempt 2";
  const FinishResult late = store.finish(completed(trial, 1, 0.75));
  EXPECT_TRUE(late.accepted);
  EXPECT_EQ(late.told_index, 0);
  const FinishResult second = store.finish(completed(trial, 2, 0.25));
  EXPECT_FALSE(second.accepted);
  EXPECT_EQ(second.state, TrialState::completed);
  EXPECT_EQ(second.told_index, -1);
  EXPECT_EQ(store.trial(trial)->score->dev_score, 0.75);
}

TEST_P(StoreTest, LateResultIsAcceptedFromAQueuedTrialToo) {
  const TrialId trial = add_trials(store, add_study(store), 1)[0];
  store.lease(trial, WorkerId{});
  store.finish(ended(trial, 1, Outcome::lost));
  EXPECT_TRUE(store.finish(completed(trial, 1, 0.5)).accepted);
  EXPECT_EQ(store.lease(trial, WorkerId{}), std::nullopt);
}

TEST_P(StoreTest, AWorkerIsBelievedAboutAttemptsOfItsNameOnly) {
  const WorkerId worker = store.join_worker({{}, "one", "h", "cpu", "0.1.0", "1.13.0", 1, 1});
  const WorkerId other = store.join_worker({{}, "other", "h", "cpu", "0.1.0", "1.13.0", 2, 1});
  const WorkerId again = store.join_worker({{}, "one", "h", "cpu", "0.1.0", "1.13.0", 1, 1});
  const std::vector<TrialId> trials = add_trials(store, add_study(store), 2);
  for (const TrialId trial : trials) {
    store.lease(trial, worker);
    store.finish(ended(trial, 1, Outcome::lost));
  }
  const EpochReport report{1, 0.5, 0.25, 1e-3, 2.0};
  EXPECT_FALSE(store.add_epoch(trials[0], 1, report, "other"));
  EXPECT_FALSE(store.finish(completed(trials[0], 1, 0.5), false, "other").accepted);
  EXPECT_FALSE(store.readopt(trials[1], 1, other));
  EXPECT_EQ(store.trial(trials[0])->state, TrialState::queued);
  EXPECT_TRUE(store.add_epoch(trials[0], 1, report, "one"));
  EXPECT_TRUE(store.finish(completed(trials[0], 1, 0.5), false, "one").accepted);
  EXPECT_TRUE(store.readopt(trials[1], 1, again));
}

TEST_P(StoreTest, ResultOfWhatNeverWasIsDropped) {
  const TrialId trial = add_trials(store, add_study(store), 1)[0];
  EXPECT_FALSE(store.finish(completed(TrialId{500}, 1, 0.5)).accepted);
  EXPECT_FALSE(store.finish(completed(trial, 1, 0.5)).accepted) << "no attempt has begun";
  store.lease(trial, WorkerId{});
  EXPECT_FALSE(store.finish(completed(trial, 2, 0.5)).accepted);
  EXPECT_EQ(store.trial(trial)->state, TrialState::leased);
}

TEST_P(StoreTest, EpochIsStoredOnce) {
  const TrialId trial = add_trials(store, add_study(store), 1)[0];
  store.lease(trial, WorkerId{});
  const EpochReport report{1, 0.5, 0.25, 1e-3, 2.0};
  EXPECT_TRUE(store.add_epoch(trial, 1, report));
  EXPECT_FALSE(store.add_epoch(trial, 1, report));
  EXPECT_FALSE(store.add_epoch(trial, 2, report)) << "that attempt never began";
  EXPECT_FALSE(store.add_epoch(TrialId{99}, 1, report));
  EXPECT_TRUE(store.add_epoch(trial, 1, {2, 0.4, 0.3, 1e-3, 2.0}));
}

TEST_P(StoreTest, RestartRequeuesWhatWasLeased) {
  const StudyId study = add_study(store);
  const auto trials = add_trials(store, study, 5);
  for (int n = 0; n < 3; ++n) store.lease(trials[static_cast<std::size_t>(n)], WorkerId{});
  store.finish(completed(trials[0], 1, 0.5));
  restart();
  EXPECT_EQ(store.requeue_leased(), 2);
  EXPECT_EQ(store.requeue_leased(), 0);
  EXPECT_EQ(store.trial(trials[0])->state, TrialState::completed);
  EXPECT_EQ(store.trial(trials[1])->state, TrialState::queued);
  EXPECT_TRUE(store.finish(completed(trials[1], 1, 0.25)).accepted) << "the worker survived the daemon";
  EXPECT_EQ(store.lease(trials[2], WorkerId{}), 2);
}

TEST_P(StoreTest, WorkerThatComesBackKeepsItsTrial) {
  const TrialId trial = add_trials(store, add_study(store), 1)[0];
  EXPECT_FALSE(store.readopt(trial, 0, WorkerId{})) << "nothing was ever lost";
  store.lease(trial, store.join_worker({{}, "w", "h", "cpu", "0.1.0", "1.13.0", 1, 1}));
  EXPECT_FALSE(store.readopt(trial, 1, WorkerId{})) << "it is leased";
  store.requeue_leased();
  const WorkerId worker = store.join_worker({{}, "w", "h", "cpu", "0.1.0", "1.13.0", 1, 1});
  EXPECT_FALSE(store.readopt(trial, 2, worker)) << "not the last attempt";
  EXPECT_TRUE(store.readopt(trial, 1, worker));
  EXPECT_FALSE(store.readopt(trial, 1, worker));
  EXPECT_EQ(store.trial(trial)->state, TrialState::leased);
  EXPECT_EQ(store.trial(trial)->attempt, 1);
  store.finish(ended(trial, 1, Outcome::preempted));
  EXPECT_FALSE(store.readopt(trial, 1, worker)) << "it was given back, not lost";
}

TEST_P(StoreTest, CancellingAStudyEndsItsOpenTrialsInOrder) {
  const StudyId study = add_study(store), other = add_study(store, "other");
  const auto trials = add_trials(store, study, 5);
  const auto others = add_trials(store, other, 2);
  for (const std::size_t n : {3u, 1u}) store.lease(trials[n], WorkerId{});
  store.finish(completed(trials[3], 1, 0.5));
  EXPECT_TRUE(store.set_study_state(study, StudyState::cancelled, "enough"));
  std::vector<std::int64_t> told;
  for (const Trial& trial : store.trials(study)) told.push_back(trial.told_index);
  EXPECT_THAT(told, ::testing::ElementsAre(1, 2, 3, 0, 4));
  EXPECT_EQ(store.trial(trials[1])->state, TrialState::cancelled);
  EXPECT_EQ(store.trial(others[0])->state, TrialState::queued);
  const FinishResult answer = store.finish(ended(trials[1], 1, Outcome::cancelled));
  EXPECT_FALSE(answer.accepted);
  EXPECT_EQ(answer.state, TrialState::cancelled);
  EXPECT_FALSE(store.finish(completed(trials[1], 1, 0.9)).accepted);
}

TEST_P(StoreTest, TrialsAreToldInTheOrderOfTheirEnds) {
  const StudyId study = add_study(store, "demo", 0), other = add_study(store, "other");
  const auto trials = add_trials(store, study, 4);
  const auto others = add_trials(store, other, 1);
  for (const TrialId id : trials) store.lease(id, WorkerId{});
  store.lease(others[0], WorkerId{});
  EXPECT_EQ(store.finish(completed(trials[2], 1, 0.5)).told_index, 0);
  EXPECT_EQ(store.finish(completed(others[0], 1, 0.5)).told_index, 0);
  EXPECT_EQ(store.finish(ended(trials[0], 1, Outcome::failed, "x")).told_index, 1);
  EXPECT_EQ(store.finish(ended(trials[3], 1, Outcome::cancelled)).told_index, 2);
  EXPECT_EQ(store.finish(ended(trials[1], 1, Outcome::pruned)).told_index, 3);
}

TEST_P(StoreTest, FitOfAReplayChangesNothing) {
  const StudyId study = add_study(store);
  FitRow fit;
  fit.surrogate = "lstm";
  fit.loss = 0.5;
  store.add_fit(study, fit);
  fit.loss = 0.75;
  EXPECT_NO_THROW(store.add_fit(study, fit));
  EXPECT_THROW(store.add_fit(StudyId{9}, fit), StoreError);
}

TEST_P(StoreTest, APrunedTrialIsCompletedWithItsScoreAndMarked) {
  const StudyId study = add_study(store);
  const auto trials = add_trials(store, study, 3);
  for (const TrialId trial : trials) store.lease(trial, WorkerId{});
  const FinishResult pruned = store.finish(ended(trials[0], 1, Outcome::pruned, "behind"));
  EXPECT_TRUE(pruned.accepted);
  EXPECT_EQ(pruned.state, TrialState::completed);
  EXPECT_EQ(pruned.told_index, 0);
  store.finish(completed(trials[1], 1, 0.125));
  TrialOutcome without = ended(trials[2], 1, Outcome::pruned);
  without.score.reset();
  EXPECT_THAT([&] { store.finish(without); }, ThrowsMessage<StoreError>(HasSubstr("outcome pruned needs a dev_score")));
  restart();
  EXPECT_TRUE(store.trial(trials[0])->pruned);
  EXPECT_EQ(store.trial(trials[0])->score->dev_score, 0.25);
  EXPECT_FALSE(store.trial(trials[1])->pruned);
}

TEST_P(StoreTest, EpochScoresAreThoseOfTheLastAttemptThatReportedThem) {
  const StudyId study = add_study(store), other = add_study(store, "other");
  const auto trials = add_trials(store, study, 3);
  const TrialId foreign = add_trials(store, other, 1)[0];
  for (const TrialId trial : {trials[0], trials[1], foreign}) {
    store.lease(trial, WorkerId{});
    for (int epoch = 1; epoch <= 3; ++epoch) store.add_epoch(trial, 1, {epoch, 1, 0.1 * epoch, 1e-3, 0.5});
  }
  store.finish(ended(trials[0], 1, Outcome::lost));
  store.lease(trials[0], WorkerId{});
  store.add_epoch(trials[0], 2, {1, 1, 0.5, 1e-3, 0.5});
  EXPECT_THAT(store.epoch_scores(study, std::vector{1, 3, 9}),
              ::testing::UnorderedElementsAre(EpochScore{trials[0], 1, 0.5}, EpochScore{trials[1], 1, 0.1},
                                              EpochScore{trials[0], 3, 0.1 * 3}, EpochScore{trials[1], 3, 0.1 * 3}));
}

TEST_P(StoreTest, GroupIsStoredWhollyOrNotAtAll) {
  const StudyId study = add_study(store);
  store.begin_group();
  add_trials(store, study, 1, 0);
  store.begin_group();
  add_trials(store, study, 1, 1);
  store.rollback_group();
  add_trials(store, study, 1, 1);
  store.begin_group();
  EXPECT_THROW(add_trials(store, study, 1, 1), StoreError);
  store.commit_group();
  store.commit_group();
  EXPECT_EQ(store.trials(study).size(), 2u);
  store.begin_group();
  add_trials(store, study, 1, 2);
  store.rollback_group();
  EXPECT_EQ(store.trials(study).size(), 2u);
}

TEST_P(StoreTest, AGroupInWhichACallThrewCanOnlyBeUndone) {
  const StudyId study = add_study(store);
  store.begin_group();
  add_trials(store, study, 1, 0);
  EXPECT_THROW(add_trials(store, study, 1, 0), StoreError);
  EXPECT_THROW(add_trials(store, study, 1, 1), StoreError);
  EXPECT_THROW(store.commit_group(), StoreError);
  store.rollback_group();
  EXPECT_EQ(store.trials(study).size(), 0u);
  add_trials(store, study, 1, 0);
  EXPECT_EQ(store.trials(study).size(), 1u);
}

// ---- of files

class StoreFileTest : public ::testing::Test {
 protected:
  fusion::testing::TemporaryFolder folder;
  SystemClock clock;
  std::string path = (folder / "fusion.db").string();
};

TEST_F(StoreFileTest, SecondDaemonIsRefusedByName) {
  Store first = Store::open(path, clock);
  EXPECT_THAT([&] { Store::open(path, clock); },
              ThrowsMessage<StoreError>(::testing::AllOf(HasSubstr("another fusiond uses this database"),
                                                         HasSubstr("process " + std::to_string(::getpid())))));
  std::filesystem::create_symlink(path, folder / "link.db");
  EXPECT_THROW(Store::open((folder / "link.db").string(), clock), StoreError);
  const Store moved = std::move(first);
  EXPECT_THROW(Store::open(path, clock), StoreError);
}

TEST_F(StoreFileTest, CleanCloseLeavesOneFile) {
  {
    Store store = Store::open(path, clock);
    add_trials(store, add_study(store), 50);
    EXPECT_TRUE(std::filesystem::exists(path + ".lock"));
    EXPECT_TRUE(std::filesystem::exists(path + "-wal"));
  }
  for (const char* other : {".lock", "-wal", "-shm"}) EXPECT_FALSE(std::filesystem::exists(path + other)) << other;
  EXPECT_EQ(Store::open(path, clock).trials(StudyId{1}).size(), 50u);
}

TEST_F(StoreFileTest, UsesAWriteAheadLog) {
  const Store store = Store::open(path, clock);
  const Database beside(path, Database::Access::read_only);
  EXPECT_EQ(beside.text("PRAGMA journal_mode"), "wal");
}

TEST_F(StoreFileTest, WrongPathsAreExplained) {
  EXPECT_THAT([&] { Store::open((folder / "no/such/x.db").string(), clock); },
              ThrowsMessage<StoreError>(::testing::AllOf(HasSubstr("no/such"), HasSubstr("does not exist"))));
  EXPECT_THAT([&] { Store::open(folder.path().string(), clock); }, ThrowsMessage<StoreError>(HasSubstr("it is a folder")));
  EXPECT_THAT([&] { Store::open("/proc/fusion.db", clock); }, ThrowsMessage<StoreError>(HasSubstr("/proc/fusion.db")));
}

TEST_F(StoreFileTest, TrialThatEndedCannotBeChangedByHandEither) {
  {
    Store store = Store::open(path, clock);
    const TrialId trial = add_trials(store, add_study(store), 1)[0];
    store.lease(trial, WorkerId{});
    store.finish(completed(trial, 1, 0.5));
  }
  Database database(path, Database::Access::create);
  EXPECT_THAT([&] { database.execute("UPDATE trials SET dev_score = 0.99"); },
              ThrowsMessage<StoreError>(HasSubstr("a trial that ended never changes")));
}

}  // namespace
}  // namespace fusion
