#include "workers/dispatch/dispatcher.h"

#include <gmock/gmock.h>

#include <future>
#include <numeric>
#include <random>
#include <set>

#include "base/random.h"
#include "store/store_reader.h"
#include "tests/workers/dispatch/harness.h"

namespace fusion {
namespace {

using protocol::Ack;
using protocol::Cancel;
using protocol::Drain;
using protocol::Epoch;
using protocol::GiveBack;
using protocol::Heartbeat;
using protocol::Held;
using protocol::Hello;
using protocol::Leaving;
using protocol::Pack;
using protocol::Refused;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using testing::Harness;
using testing::ScriptedWorker;
using testing::held;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::vector<std::string> event_kinds(Harness& h) {
  std::vector<std::string> kinds;
  const StoreReader reader = StoreReader::open(h.folder / "fusion.db");
  for (const auto& event : reader.events(std::nullopt, 0, 1000)) kinds.push_back(event.at("kind"));
  return kinds;
}

TEST(DispatcherTest, AWorkerGetsPacksAndItsResultsAreStoredThenAcknowledgedThenTold) {
  Harness h;
  const StudyId study = h.add_study(3);
  ScriptedWorker worker(h.port());
  const auto welcome = worker.join("w", 2);
  EXPECT_GT(welcome.worker.value, 0);
  EXPECT_EQ(welcome.lease_s, 60);
  EXPECT_EQ(welcome.heartbeat_s, 10);
  const Pack pack = worker.expect<Pack>();
  EXPECT_EQ(pack.study, study);
  EXPECT_EQ(pack.dataset_path, "/data/features.json");
  EXPECT_EQ(pack.dataset_digest, std::string(64, 'd'));
  ASSERT_THAT(pack.trials, SizeIs(2));
  EXPECT_EQ(pack.trials[0].attempt, 1);
  EXPECT_EQ(pack.trials[0].seed, 17u);
  EXPECT_EQ(canonical_text(pack.trials[1].architecture), "[[1,0,0]]");
  EXPECT_EQ(h.trial(pack.trials[0].trial).state, TrialState::leased);

  worker.say(Epoch{pack.trials[1].trial, 1, {1, 0.5, 0.25, 1e-3, 0.1}});
  const Ack epoch = worker.expect<Ack>();
  EXPECT_TRUE(epoch.what == "epoch" && epoch.accepted && epoch.epoch == 1);

  worker.say(ScriptedWorker::result(held(pack.trials[1]), 0.75));
  const Ack ack = worker.expect<Ack>();
  EXPECT_TRUE(ack.what == "result" && ack.accepted && ack.trial == pack.trials[1].trial);
  EXPECT_EQ(h.trial(ack.trial).score->dev_score, 0.75);
  const Pack next = worker.expect<Pack>();
  ASSERT_THAT(next.trials, SizeIs(1));

  EXPECT_TRUE(worker.report(held(next.trials[0]), 0.5).accepted);
  EXPECT_TRUE(worker.report(held(pack.trials[0]), 0.25).accepted);
  const std::vector<Ended> ended = h.all_ended();
  ASSERT_THAT(ended, SizeIs(3));
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(ended[i].told_index, static_cast<std::int64_t>(i));
  EXPECT_EQ(ended[0].ask_index, 1);
  EXPECT_EQ(ended[0].score, 0.75);
  EXPECT_EQ(canonical_text(ended[0].architecture), "[[1,0,0]]");
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->outstanding(study).leased; }), 0u);
}

TEST(DispatcherTest, AWorkerThatDiesLosesItsTrialToTheNextAttempt) {
  Harness h;
  h.add_study(1);
  auto first = std::make_unique<ScriptedWorker>(h.port());
  first->join("first");
  const Pack pack = first->expect<Pack>();
  first->vanish();
  h.wait_until([&] { return h.dispatcher->connected_workers() == 0; });
  ScriptedWorker second(h.port());
  second.join("second");
  h.advance(seconds(59));
  EXPECT_EQ(h.trial(pack.trials[0].trial).state, TrialState::leased) << "the lease runs on";
  second.say(Heartbeat{});
  h.advance(seconds(1));
  const Pack again = second.expect<Pack>();
  ASSERT_THAT(again.trials, SizeIs(1));
  EXPECT_EQ(again.trials[0].trial, pack.trials[0].trial);
  EXPECT_EQ(again.trials[0].attempt, 2);
  EXPECT_EQ(h.trial(again.trials[0].trial).failures, 0) << "no retry was used";
  EXPECT_TRUE(second.report(held(again.trials[0]), 0.5).accepted);
  EXPECT_THAT(event_kinds(h), UnorderedElementsAre("worker_joined", "worker_joined", "worker_left", "trial_lost"));
}

TEST(DispatcherTest, AStalledWorkerLosesItsTrialGetsNothingNewAndMayStillFinishFirst) {
  Harness h;
  const StudyId study = h.add_study(1);
  ScriptedWorker stalled(h.port()), other(h.port());
  stalled.join("stalled");
  const Pack pack = stalled.expect<Pack>();
  other.join("other");
  h.advance(seconds(59));
  other.say(Heartbeat{});
  h.wait_until([&] { return h.dispatcher->workers_json()[0].at("silent_s") == 0.0; });
  h.advance(seconds(1));
  const Pack again = other.expect<Pack>();
  EXPECT_EQ(again.trials[0].attempt, 2);

  EXPECT_TRUE(stalled.report(held(pack.trials[0]), 0.9).accepted) << "late, but nobody finished first";
  const Cancel cancel = other.expect<Cancel>();
  EXPECT_THAT(cancel.held, ElementsAre(held(again.trials[0])));
  EXPECT_FALSE(other.report(held(again.trials[0]), 0, Outcome::cancelled).accepted);
  const std::vector<Ended> ended = h.all_ended();
  ASSERT_THAT(ended, SizeIs(1)) << "a trial is told once";
  EXPECT_EQ(ended[0].score, 0.9);
  h.add_trials(study, 2);
  stalled.expect<Pack>();
  other.expect<Pack>();
}

TEST(DispatcherTest, HeartbeatsKeepLeasesAndLoseWhatTheyDoNotName) {
  Harness h;
  h.add_study(2);
  ScriptedWorker worker(h.port());
  worker.join("w", 2);
  const Pack pack = worker.expect<Pack>();
  ASSERT_THAT(pack.trials, SizeIs(2));
  for (int i = 0; i < 3; ++i) {
    worker.say(Heartbeat{{held(pack.trials[0]), held(pack.trials[1])}});
    h.wait_until([&] { return h.dispatcher->workers_json()[0].at("silent_s") == 0.0; });
    h.advance(seconds(40));
  }
  EXPECT_EQ(h.trial(pack.trials[0].trial).state, TrialState::leased) << "after twice the length of a lease";
  worker.say(Heartbeat{{held(pack.trials[1])}});
  const Pack again = worker.expect<Pack>();
  ASSERT_THAT(again.trials, SizeIs(1));
  EXPECT_EQ(held(again.trials[0]), (Held{pack.trials[0].trial, 2}));
}

TEST(DispatcherTest, LiesAreDroppedAndAcknowledged) {
  Harness h;
  const StudyId study = h.add_study(2);
  ScriptedWorker honest(h.port()), liar(h.port());
  honest.join("honest");
  const Pack pack = honest.expect<Pack>();
  liar.join("liar");
  const Pack own = liar.expect<Pack>();
  const Held theirs = held(pack.trials[0]);
  EXPECT_FALSE(liar.report(theirs, 1).accepted) << "held by another";
  EXPECT_FALSE(liar.report(theirs, 0, Outcome::failed).accepted);
  EXPECT_FALSE(liar.report({theirs.trial, 7}, 1).accepted) << "an attempt that never began";
  EXPECT_FALSE(liar.report({TrialId{999}, 1}, 1).accepted) << "a trial that does not exist";
  liar.say(Epoch{theirs.trial, 1, {1, 0, 1, 0, 0}});
  EXPECT_FALSE(liar.expect<Ack>().accepted);
  liar.say(GiveBack{{theirs, {TrialId{999}, 1}}, "not mine"});
  EXPECT_EQ(h.trial(theirs.trial).state, TrialState::leased);
  EXPECT_TRUE(honest.report(theirs, 0.5).accepted);
  EXPECT_FALSE(honest.report(theirs, 0.75).accepted) << "a duplicate";
  EXPECT_EQ(h.trial(theirs.trial).score->dev_score, 0.5);
  EXPECT_TRUE(liar.report(held(own.trials[0]), 0.25).accepted) << "its own one counts";
  EXPECT_THAT(h.all_ended(), SizeIs(2));
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->outstanding(study).leased; }), 0u);
}

TEST(DispatcherTest, FailuresUseRetriesAndReturnToTheFront) {
  Harness h;
  h.add_study(2, 0, true, 1);
  ScriptedWorker worker(h.port());
  worker.join("w");
  const Pack first = worker.expect<Pack>();
  EXPECT_TRUE(worker.report(held(first.trials[0]), 0, Outcome::failed).accepted);
  const Pack second = worker.expect<Pack>();
  EXPECT_EQ(held(second.trials[0]), (Held{first.trials[0].trial, 2})) << "before the trial asked later";
  EXPECT_TRUE(worker.report(held(second.trials[0]), 0, Outcome::failed).accepted);
  EXPECT_NE(worker.expect<Pack>().trials[0].trial, first.trials[0].trial);
  const std::vector<Ended> ended = h.all_ended();
  ASSERT_THAT(ended, SizeIs(1));
  EXPECT_EQ(ended[0].state, TrialState::failed);
  EXPECT_THAT(event_kinds(h), ElementsAre("worker_joined", "trial_requeued"));
}

TEST(DispatcherTest, WhatIsGivenBackGoesToOthersWithoutUsingARetry) {
  Harness h;
  h.add_study(1, 0, true, 0);
  ScriptedWorker leaving(h.port());
  leaving.join("leaving");
  const Pack pack = leaving.expect<Pack>();
  leaving.say(Leaving{"preempted"});
  leaving.say(GiveBack{{held(pack.trials[0])}, "preempted"});
  ScriptedWorker other(h.port());
  other.join("other");
  const Pack again = other.expect<Pack>();
  EXPECT_EQ(again.trials[0].attempt, 2);
  EXPECT_TRUE(other.report(held(again.trials[0]), 0.5).accepted);
}

TEST(DispatcherTest, AWorkerThatReconnectsGoesOn) {
  Harness h;
  h.add_study(2);
  auto before = std::make_unique<ScriptedWorker>(h.port());
  before->join("w", 2);
  const Pack pack = before->expect<Pack>();
  before->vanish();
  ScriptedWorker after(h.port());
  after.join("w", 2, {held(pack.trials[0])});
  const Pack again = after.expect<Pack>();
  ASSERT_THAT(again.trials, SizeIs(1)) << "what it came back without is lost";
  EXPECT_EQ(held(again.trials[0]), (Held{pack.trials[1].trial, 2}));
  EXPECT_TRUE(after.report(held(pack.trials[0]), 0.5).accepted);
  EXPECT_EQ(h.trial(pack.trials[0].trial).attempt, 1);
}

TEST(DispatcherTest, AWorkerThatComesBackLateIsGivenWhatIsStillQueuedAndToldToStopTheRest) {
  Harness h;
  const StudyId study = h.add_study(3);
  auto before = std::make_unique<ScriptedWorker>(h.port());
  before->join("w", 3);
  const Pack pack = before->expect<Pack>();
  ASSERT_THAT(pack.trials, SizeIs(3));
  before->vanish();
  h.wait_until([&] { return h.dispatcher->connected_workers() == 0; });
  h.on_io([&] { h.dispatcher->set_paused(study, true); });
  h.advance(seconds(60));
  h.wait_until([&] { return h.dispatcher->outstanding(study).queued == 3; });
  ScriptedWorker other(h.port());
  other.join("other");
  h.on_io([&] { h.dispatcher->set_paused(study, false); });
  const Pack taken = other.expect<Pack>();
  h.on_io([&] { h.dispatcher->set_paused(study, true); });
  ASSERT_EQ(taken.trials[0].trial, pack.trials[0].trial);

  ScriptedWorker after(h.port());
  after.join("w", 3, {held(pack.trials[0]), held(pack.trials[1]), {TrialId{999}, 1}});
  EXPECT_THAT(after.expect<Cancel>().held, UnorderedElementsAre(held(pack.trials[0]), Held{TrialId{999}, 1}));
  EXPECT_EQ(h.trial(pack.trials[1].trial).state, TrialState::leased);
  EXPECT_EQ(h.trial(pack.trials[1].trial).attempt, 1);
  EXPECT_TRUE(after.report(held(pack.trials[1]), 0.5).accepted);
}

TEST(DispatcherTest, WorkersOutliveTheDaemon) {
  Harness h;
  const StudyId study = h.add_study(3);
  auto early = std::make_unique<ScriptedWorker>(h.port());
  early->join("early", 1);
  const Pack one = early->expect<Pack>();
  auto late = std::make_unique<ScriptedWorker>(h.port());
  late->join("late", 1);
  const Pack two = late->expect<Pack>();
  h.end();
  h.begin();
  EXPECT_EQ(h.on_store([](Store& s) { return s.requeue_leased(); }), 2);
  const std::vector<QueuedTrial> open = h.open_trials(study, true);
  ScriptedWorker early_again(h.port());  // faster than the study
  early_again.join("early", 1, {held(one.trials[0])});
  h.on_io([&] { h.dispatcher->add_study(Harness::study_of(study)); });
  h.on_io([&] { h.dispatcher->submit(study, open); });
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->outstanding(study).leased; }), 1u);
  ScriptedWorker stranger(h.port());
  stranger.join("stranger", 1);
  ScriptedWorker late_again(h.port());
  late_again.join("late", 1, {held(two.trials[0])});
  EXPECT_TRUE(late_again.report(held(two.trials[0]), 0.5).accepted);
  EXPECT_EQ(h.trial(two.trials[0].trial).attempt, 1) << "it was held back for its worker";
  EXPECT_TRUE(early_again.report(held(one.trials[0]), 0.25).accepted);
  h.advance(milliseconds(300));
  h.wait_until([&] { return h.dispatcher->outstanding(study).leased == 1; });
  EXPECT_THAT(h.all_ended(), SizeIs(2));
}

TEST(DispatcherTest, WhatCrossedAGoodByeOnTheWayIsQueuedAgainAtOnce) {
  Harness h;
  const StudyId study = h.add_study(1);
  auto worker = std::make_unique<ScriptedWorker>(h.port());
  worker->join("w");
  const Pack pack = worker->expect<Pack>();
  worker->say(Leaving{"preempted"});  // it has not seen the pack
  worker->vanish();
  h.wait_until([&] { return h.dispatcher->outstanding(study).queued == 1; });  // no lease has to run out
  ScriptedWorker other(h.port());
  other.join("other");
  EXPECT_EQ(other.expect<Pack>().trials.at(0).attempt, pack.trials.at(0).attempt + 1);
  EXPECT_EQ(h.trials_of(study)[0].lost, 0) << "no retry is used up";
}

TEST(DispatcherTest, AResultThatComesAfterARestartIsAcceptedWithoutALease) {
  Harness h;
  const StudyId study = h.add_study(1);
  auto worker = std::make_unique<ScriptedWorker>(h.port());
  worker->join("w");
  const Pack pack = worker->expect<Pack>();
  h.end();
  h.begin();
  h.on_store([](Store& s) { return s.requeue_leased(); });
  h.on_io([&] { h.dispatcher->add_study(Harness::study_of(study)); });
  h.on_io([&, open = h.open_trials(study, true)] { h.dispatcher->submit(study, open); });
  ScriptedWorker again(h.port());
  again.join("w");
  EXPECT_TRUE(again.report(held(pack.trials[0]), 0.5).accepted);
  ASSERT_THAT(h.all_ended(), SizeIs(1));
  h.advance(seconds(1));
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->outstanding(study).queued; }), 0u);
}

TEST(DispatcherTest, ATrialAdoptedBeforeItsStudyIsKnownIsLeasedAgainWhenItIsLost) {
  Harness h;
  const StudyId study = h.add_study(1);
  auto worker = std::make_unique<ScriptedWorker>(h.port());
  worker->join("w");
  const Pack pack = worker->expect<Pack>();
  h.end();
  h.begin();
  h.on_store([](Store& s) { return s.requeue_leased(); });
  ScriptedWorker again(h.port());
  again.join("w", 1, {held(pack.trials[0])});
  EXPECT_EQ(h.trial(pack.trials[0].trial).state, TrialState::leased);
  h.on_io([&] { h.dispatcher->add_study(Harness::study_of(study)); });
  again.say(Heartbeat{});  // it named the trial, and does not any more
  const Pack next = again.expect<Pack>();
  ASSERT_THAT(next.trials, SizeIs(1));
  EXPECT_EQ(held(next.trials[0]), (Held{pack.trials[0].trial, 2}));
}

/// A daemon that was restarted, and a worker that came back with two trials of a study that is not taken up yet.
struct Returned {
  explicit Returned(Harness& h) : study(h.add_study(2)) {
    {
      ScriptedWorker before(h.port());
      before.join("w", 2);
      pack = before.expect<Pack>();
      before.vanish();
    }
    h.end();
    h.begin();
    h.on_store([](Store& s) { return s.requeue_leased(); });
    open = h.open_trials(study, true);
    worker = std::make_unique<ScriptedWorker>(h.port());
    worker->join("w", 2, {held(pack.trials[0]), held(pack.trials[1])});
  }
  StudyId study;
  Pack pack;
  std::vector<QueuedTrial> open;
  std::unique_ptr<ScriptedWorker> worker;
};

TEST(DispatcherTest, TrialsOfAStudyThatIsGoneAreStoppedWhereTheyCameBack) {
  Harness h;
  Returned r(h);
  EXPECT_EQ(h.trial(r.pack.trials[0].trial).state, TrialState::leased);
  h.on_io([&] { h.dispatcher->submit(r.study, r.open); });  // it could not be taken up
  const Cancel cancel = r.worker->expect<Cancel>();
  EXPECT_THAT(cancel.held, UnorderedElementsAre(held(r.pack.trials[0]), held(r.pack.trials[1])));
  EXPECT_THAT(cancel.reason, HasSubstr("does not run any more"));
  for (const Trial& trial : h.trials_of(r.study)) EXPECT_EQ(trial.state, TrialState::queued) << "for when it is resumed";
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->outstanding(r.study).queued; }), 0u);
  for (const Held& what : cancel.held) EXPECT_FALSE(r.worker->report(what, 0, Outcome::cancelled).accepted);
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->free_slots(); }), 2u);
}

TEST(DispatcherTest, TrialsOfAStudyThatWasCancelledAreStoppedWithoutAnEvent) {
  Harness h;
  Returned r(h);
  h.on_store([&](Store& s) { return s.set_study_state(r.study, StudyState::cancelled); });
  h.on_io([&] { h.dispatcher->cancel_study(r.study, "cancelled"); });
  h.on_io([&] { h.dispatcher->submit(r.study, r.open); });
  EXPECT_THAT(r.worker->expect<Cancel>().held, SizeIs(2));
  for (const Trial& trial : h.trials_of(r.study)) EXPECT_EQ(trial.state, TrialState::cancelled);
  EXPECT_THAT(event_kinds(h), ::testing::Not(::testing::Contains("result_late")));
}

TEST(DispatcherTest, ATrialThatIsBeingReadoptedIsStoppedTooWhenItsStudyIsGone) {
  Harness h;
  Returned r(h);
  r.worker->vanish();
  h.wait_until([&] { return h.dispatcher->connected_workers() == 0; });
  h.end();
  h.begin();
  h.on_store([](Store& s) { return s.requeue_leased(); });
  std::promise<void> go;
  h.on_io([&, wait = go.get_future().share()] {
    h.store->async(h.io->get_executor(), [wait](Store&) { return wait.wait(), true; }, [](StoreResult<bool>) {});
  });
  ScriptedWorker again(h.port());
  protocol::Hello hello;
  hello.name = "w";
  hello.host = "here";
  hello.pack = hello.slots = 2;
  hello.held = {held(r.pack.trials[0])};
  again.say(hello);
  h.wait_until([&] { return h.dispatcher->connected_workers() == 1; });
  h.on_io([&] { h.dispatcher->submit(r.study, r.open); });
  go.set_value();
  again.expect<protocol::Welcome>();
  EXPECT_THAT(again.expect<Cancel>().held, ElementsAre(held(r.pack.trials[0])));
  EXPECT_EQ(h.trial(r.pack.trials[0].trial).state, TrialState::queued);
}

DispatchStudy with_early_stopping(StudyId id) {
  DispatchStudy study = Harness::study_of(id);
  study.training.epochs = 9;
  study.early_stopping = {EarlyStoppingPolicy::asha, 3, 1};
  return study;
}

TEST(DispatcherTest, ATrialThatFallsBehindIsPrunedBeforeItsEpochIsAcknowledged) {
  Harness h;
  const StudyId study = h.add_study(0);
  h.on_io([&] { h.dispatcher->add_study(with_early_stopping(study)); });
  h.add_trials(study, 3);
  ScriptedWorker worker(h.port());
  worker.join("w", 3);
  const Pack pack = worker.expect<Pack>();
  ASSERT_THAT(pack.trials, SizeIs(3));
  worker.say(Epoch{pack.trials[0].trial, 1, {1, 0.5, 0.6, 1e-3, 0.1}});
  EXPECT_TRUE(worker.expect<Ack>().accepted) << "the first goes on";
  const Epoch behind{pack.trials[1].trial, 1, {1, 0.5, 0.4, 1e-3, 0.1}};
  worker.say(behind);
  const protocol::Prune prune = worker.expect<protocol::Prune>();
  EXPECT_THAT(prune.held, ElementsAre(held(pack.trials[1])));
  EXPECT_THAT(prune.reason, HasSubstr("not among the best 1 of 2"));
  EXPECT_TRUE(worker.expect<Ack>().accepted);
  worker.say(behind);  // as after a reconnect: the word may have been lost
  worker.expect<protocol::Prune>();
  EXPECT_FALSE(worker.expect<Ack>().accepted);
  worker.say(Epoch{pack.trials[2].trial, 1, {1, 0.5, 0.7, 1e-3, 0.1}});
  EXPECT_TRUE(worker.expect<Ack>().accepted) << "a new best goes on";

  protocol::Result result = ScriptedWorker::result(held(pack.trials[1]), 0.4);
  result.outcome.outcome = Outcome::pruned;
  result.outcome.error = prune.reason;
  worker.say(result);
  EXPECT_TRUE(worker.expect<Ack>().accepted);
  const std::vector<Ended> ended = h.all_ended();
  ASSERT_THAT(ended, SizeIs(1));
  EXPECT_EQ(ended[0].state, TrialState::completed);
  EXPECT_EQ(ended[0].score, 0.4) << "the strategy is told what it had";
  EXPECT_TRUE(h.trial(pack.trials[1].trial).pruned);
}

TEST(DispatcherTest, RungsAreRebuiltFromWhatWasStored) {
  Harness h;
  const StudyId study = h.add_study(0);
  h.on_io([&] { h.dispatcher->add_study(with_early_stopping(study)); });
  h.add_trials(study, 2);
  Pack pack;
  {
    ScriptedWorker before(h.port());
    before.join("w", 2);
    pack = before.expect<Pack>();
    before.say(Epoch{pack.trials[0].trial, 1, {1, 0.5, 0.6, 1e-3, 0.1}});
    before.expect<Ack>();
    before.vanish();
  }
  h.end();
  h.begin();
  h.on_store([](Store& s) { return s.requeue_leased(); });
  h.on_io([&, open = h.open_trials(study, true)] {
    h.dispatcher->add_study(with_early_stopping(study));
    h.dispatcher->submit(study, open);
  });
  ScriptedWorker after(h.port());
  after.join("w", 2, {held(pack.trials[0]), held(pack.trials[1])});
  after.say(Epoch{pack.trials[1].trial, 1, {1, 0.5, 0.4, 1e-3, 0.1}});
  EXPECT_THAT(after.expect<protocol::Prune>().held, ElementsAre(held(pack.trials[1])));
}

TEST(DispatcherTest, WithoutEarlyStoppingNothingIsPruned) {
  Harness h;
  h.add_study(2);
  ScriptedWorker worker(h.port());
  worker.join("w", 2);
  const Pack pack = worker.expect<Pack>();
  for (const TrialJob& job : pack.trials) {
    worker.say(Epoch{job.trial, 1, {1, 0.5, 1.0 / static_cast<double>(1 + job.trial.value), 1e-3, 0.1}});
    EXPECT_TRUE(worker.expect<Ack>().accepted);
  }
}

TEST(DispatcherTest, AStudyThatIsRemovedLeavesItsTrialsQueuedInTheStore) {
  Harness h;
  const StudyId study = h.add_study(2);
  ScriptedWorker worker(h.port());
  worker.join("w", 2);
  const Pack pack = worker.expect<Pack>();
  ASSERT_THAT(pack.trials, SizeIs(2));
  h.on_io([&] { h.dispatcher->remove_study(study); });
  const Cancel cancel = worker.expect<Cancel>();
  ASSERT_THAT(cancel.held, SizeIs(2));
  EXPECT_EQ(h.trial(pack.trials[0].trial).state, TrialState::queued);
  EXPECT_FALSE(worker.report(cancel.held[0], 0, Outcome::cancelled).accepted);
  EXPECT_EQ(h.trial(pack.trials[0].trial).state, TrialState::queued) << "its answer cancels nothing";
  h.on_io([&, open = h.open_trials(study)] {
    h.dispatcher->add_study(Harness::study_of(study));
    h.dispatcher->submit(study, open);
  });
  const Pack next = worker.expect<Pack>();
  ASSERT_THAT(next.trials, SizeIs(1)) << "the other slot is still taken";
  EXPECT_EQ(next.trials[0].attempt, 2);
}

TEST(DispatcherTest, ASecondConnectionOfAWorkerReplacesTheFirst) {
  Harness h;
  ScriptedWorker first(h.port()), second(h.port());
  first.join("w");
  second.join("w");
  EXPECT_FALSE(first.hear().has_value());
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->connected_workers(); }), 1u);
  h.add_study(1);
  second.expect<Pack>();
}

TEST(DispatcherTest, PacksAreOfOneStudyHigherPrioritiesFirstEqualOnesInTurn) {
  Harness h;
  const StudyId a = h.add_study(4), b = h.add_study(4), urgent = h.add_study(2, 5);
  ScriptedWorker worker(h.port());
  worker.join("w", 2);
  std::vector<StudyId> order;
  for (int i = 0; i < 5; ++i) {
    const Pack pack = worker.expect<Pack>();
    ASSERT_THAT(pack.trials, SizeIs(2));
    order.push_back(pack.study);
    // Both at once: the answers make room for one pack of two.
    worker.say(ScriptedWorker::result(held(pack.trials[0]), 0.5));
    worker.say(ScriptedWorker::result(held(pack.trials[1]), 0.5));
    if (i < 4) h.on_io([&] { h.dispatcher->set_paused(a, true), h.dispatcher->set_paused(b, true); });
    worker.expect<Ack>();
    worker.expect<Ack>();
    if (i < 4) h.on_io([&] { h.dispatcher->set_paused(a, false), h.dispatcher->set_paused(b, false); });
  }
  EXPECT_THAT(order, ElementsAre(urgent, a, b, a, b));
}

TEST(DispatcherTest, TrialsAreSpreadOverWorkers) {
  Harness h;
  ScriptedWorker big(h.port()), small(h.port());
  big.join("big", 64);
  small.join("small", 4);
  h.wait_until([&] { return h.dispatcher->free_slots() == 68; });
  h.add_study(32);
  EXPECT_THAT(small.expect<Pack>().trials, SizeIs(4));
  EXPECT_THAT(big.expect<Pack>().trials, SizeIs(28));
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->free_slots(); }), 36u);
}

/// How many trials each of these workers has been sent, by now.
std::map<std::string, std::size_t> spread(Harness& h) {
  h.wait_until([&] { return h.dispatcher->outstanding(StudyId{1}).queued == 0; });
  h.on_store([](Store&) {});
  std::map<std::string, std::size_t> counts;
  for (const auto& worker : h.on_io([&] { return h.dispatcher->workers_json(); })) {
    counts[worker.at("name")] = worker.at("held").size();
  }
  return counts;
}

TEST(DispatcherTest, FewTrialsAreBegunEverywhereBeforeAnyWaits) {
  using Counts = std::map<std::string, std::size_t>;
  const std::vector<std::pair<int, Counts>> cases{{3, {{"a", 1}, {"b", 1}, {"c", 1}}},
                                                  {8, {{"a", 3}, {"b", 3}, {"c", 2}}},
                                                  {12, {{"a", 4}, {"b", 4}, {"c", 4}}},
                                                  {15, {{"a", 5}, {"b", 5}, {"c", 5}}},
                                                  {24, {{"a", 8}, {"b", 8}, {"c", 8}}}};
  for (const auto& [trials, expected] : cases) {
    Harness h;
    ScriptedWorker a(h.port()), b(h.port()), c(h.port());
    a.join("a", 8, {}, 4);
    b.join("b", 8, {}, 4);
    c.join("c", 8, {}, 4);
    h.wait_until([&] { return h.dispatcher->free_slots() == 24; });
    h.add_study(trials);
    EXPECT_EQ(spread(h), expected) << trials;
  }
}

TEST(DispatcherTest, AWorkerWithWaitingTrialsComesAfterOneThatCouldBegin) {
  Harness h;
  ScriptedWorker busy(h.port());
  busy.join("busy", 64, {}, 4);
  h.add_study(6);
  EXPECT_EQ(spread(h)["busy"], 6u) << "alone it is given all";
  ScriptedWorker idle(h.port());
  idle.join("idle", 8, {}, 4);
  h.wait_until([&] { return h.dispatcher->free_slots() == 58 + 8; });
  h.add_trials(StudyId{1}, 4);
  EXPECT_EQ(spread(h)["idle"], 4u);
  h.add_trials(StudyId{1}, 4);
  EXPECT_EQ(spread(h)["idle"], 7u) << "seven each";
}

TEST(DispatcherTest, LargePacksAreFilledBesideSmallOnes) {
  Harness h;
  ScriptedWorker gpu(h.port()), cpu(h.port());
  gpu.join("gpu", 128, {}, 64);
  cpu.join("cpu", 8, {}, 4);
  h.wait_until([&] { return h.dispatcher->free_slots() == 136; });
  h.add_study(15);
  EXPECT_EQ(spread(h), (std::map<std::string, std::size_t>{{"cpu", 4}, {"gpu", 11}}));
}

/// The store's thread stands still, amid a transaction, until `go_on`.
struct StandingStore {
  explicit StandingStore(Harness& h) {
    h.on_io([&] {
      auto stand = [this, until = go_on.get_future().share()](Store&) {
        stands.set_value();
        until.wait();
        return std::monostate{};
      };
      h.store->async(h.io->get_executor(), std::move(stand), [](StoreResult<std::monostate>) {});
    });
    stands.get_future().wait();
  }
  std::promise<void> go_on, stands;
};

std::uint64_t commits(Harness& h) {
  const auto counts = h.store->figures().commit.counts();
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

/// Commits that it takes until the outcomes of what `worker` holds are acknowledged and a new pack is there.
std::uint64_t commits_of_a_turnaround(Harness& h, ScriptedWorker& worker, const std::vector<TrialJob>& jobs, Outcome outcome) {
  StandingStore standing(h);
  const std::uint64_t posted = h.store->figures().posted.value(), before = commits(h);
  for (const TrialJob& job : jobs) worker.say(ScriptedWorker::result(held(job), 0.5, outcome));
  h.wait_until([&] { return h.store->figures().posted.value() >= posted + jobs.size(); });
  standing.go_on.set_value();
  for (std::size_t i = 0; i < jobs.size(); ++i) EXPECT_TRUE(worker.expect<protocol::Ack>().accepted);
  EXPECT_THAT(worker.expect<Pack>().trials, SizeIs(jobs.size()));
  return commits(h) - before - 1;
}

TEST(DispatcherTest, TheNextPackIsLeasedByTheTransactionThatStoresTheLastResult) {
  Harness h;
  h.add_study(8);
  ScriptedWorker worker(h.port());
  worker.join("w", 2);
  const std::vector<TrialJob> jobs = worker.expect<Pack>().trials;
  EXPECT_EQ(commits_of_a_turnaround(h, worker, jobs, Outcome::completed), 1u);
}

TEST(DispatcherTest, AFailureIsStoredBeforeTheNextPackIsLeasedForItMayPauseTheStudy) {
  Harness h;
  h.add_study(8, 0, true, 0);
  ScriptedWorker worker(h.port());
  worker.join("w", 1);
  const std::vector<TrialJob> jobs = worker.expect<Pack>().trials;
  EXPECT_EQ(commits_of_a_turnaround(h, worker, jobs, Outcome::failed), 2u);
}

TEST(DispatcherTest, AWorkerIsGivenNoMoreThanItSaysThatItCanFinish) {
  Harness h;
  h.add_study(6);
  ScriptedWorker worker(h.port());
  protocol::Hello hello;
  hello.name = "w";
  hello.host = "here";
  hello.device = "cpu";
  hello.pack = 2;
  hello.slots = 4;
  hello.code_version = hello.torch_version = "1";
  hello.condition.fits = 3;
  hello.condition.time_left_s = 100;
  worker.say(hello);
  worker.expect<protocol::Welcome>();
  std::vector<TrialJob> got;
  while (got.size() < 3) {
    for (const TrialJob& job : worker.expect<Pack>().trials) got.push_back(job);
  }
  EXPECT_THAT(got, SizeIs(3)) << "of four slots";
  Heartbeat beat;
  for (const TrialJob& job : got) beat.held.push_back(held(job));
  beat.condition.fits = 0;
  worker.say(beat);
  for (const TrialJob& job : got) EXPECT_TRUE(worker.report(held(job), 0.5).accepted) << "an acknowledgement, and no pack before it";
  const auto list = h.on_io([&] { return h.dispatcher->workers_json(); });
  EXPECT_EQ(list.at(0).at("condition").at("fits"), 0);
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->free_slots(); }), 0u);
}

TEST(DispatcherTest, PacksFollowWhatAWorkerSaysOfItselfBothWays) {
  Harness h;
  h.add_study(20);
  ScriptedWorker worker(h.port());
  worker.join("w", 2, {}, 2);
  std::vector<TrialJob> jobs = worker.expect<Pack>().trials;
  ASSERT_THAT(jobs, SizeIs(2));
  const auto beat = [&](int pack, int slots) {
    Heartbeat said;
    for (const TrialJob& job : jobs) said.held.push_back(held(job));
    said.condition.pack = pack;
    said.condition.slots = slots;
    worker.say(said);
  };
  beat(6, 8);
  while (jobs.size() < 8) {
    for (const TrialJob& job : worker.expect<Pack>().trials) jobs.push_back(job);
  }
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->workers_json(); }).at(0).at("pack"), 6);
  beat(1, 2);
  for (; jobs.size() > 2; jobs.pop_back()) EXPECT_TRUE(worker.report(held(jobs.back()), 0.5).accepted) << "and no pack before it";
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->free_slots(); }), 0u);
  EXPECT_TRUE(worker.report(held(jobs.back()), 0.5).accepted);
  EXPECT_THAT(worker.expect<Pack>().trials, SizeIs(1));
}

TEST(DispatcherTest, AStudyWhoseDataAWorkerCannotReadGoesToAnotherOne) {
  Harness h;
  h.add_study(2);
  ScriptedWorker blind(h.port()), other(h.port());
  blind.join("blind");
  const Pack pack = blind.expect<Pack>();
  Heartbeat beat;
  beat.held = {held(pack.trials[0])};
  beat.condition.unreadable = {{std::string(64, 'd'), "train.safetensors: its SHA-256 is another"}};
  blind.say(beat);
  blind.say(GiveBack{{held(pack.trials[0])}, "train.safetensors: its SHA-256 is another"});
  other.join("other", 2);
  std::size_t trials = 0;
  while (trials < 2) trials += other.expect<Pack>().trials.size();
  EXPECT_EQ(h.trial(pack.trials[0].trial).failures, 0) << "no retry was used";
  const StoreReader reader = StoreReader::open(h.folder / "fusion.db");
  int told = 0;
  for (const auto& event : reader.events(std::nullopt, 0, 1000)) {
    if (event.at("kind") != "worker_blocked") continue;
    ++told;
    EXPECT_THAT(event.at("text").get<std::string>(), HasSubstr("its SHA-256 is another"));
  }
  EXPECT_EQ(told, 1);
}

TEST(DispatcherTest, APausedStudyIsNotLeased) {
  Harness h;
  const StudyId study = h.add_study(0);
  h.on_io([&] { h.dispatcher->set_paused(study, true); });
  h.add_trials(study, 1);
  ScriptedWorker worker(h.port());
  worker.join("w");
  h.advance(milliseconds(50));
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->outstanding(study).queued; }), 1u);
  h.on_io([&] { h.dispatcher->set_paused(study, false); });
  worker.expect<Pack>();
}

TEST(DispatcherTest, CancellingAStudyStopsItsTrialsAndFreesTheirSlots) {
  Harness h;
  const StudyId study = h.add_study(3);
  ScriptedWorker worker(h.port());
  worker.join("w", 2);
  const Pack pack = worker.expect<Pack>();
  h.on_store([&](Store& s) { return s.set_study_state(study, StudyState::cancelled); });
  h.on_io([&] { h.dispatcher->cancel_study(study, "study cancelled by a person"); });
  const Cancel cancel = worker.expect<Cancel>();
  EXPECT_THAT(cancel.held, UnorderedElementsAre(held(pack.trials[0]), held(pack.trials[1])));
  EXPECT_EQ(cancel.reason, "study cancelled by a person");
  for (const Held& what : cancel.held) EXPECT_FALSE(worker.report(what, 0, Outcome::cancelled).accepted);
  EXPECT_THAT(h.all_ended(), IsEmpty());
  h.add_study(2);
  EXPECT_THAT(worker.expect<Pack>().trials, SizeIs(2));
}

TEST(DispatcherTest, DrainedWorkersGetNothingNew) {
  Harness h;
  h.add_study(2);
  ScriptedWorker worker(h.port());
  worker.join("w");
  const Pack pack = worker.expect<Pack>();
  h.on_io([&] { h.dispatcher->drain_workers("enough"); });
  EXPECT_EQ(worker.expect<Drain>().reason, "enough");
  EXPECT_TRUE(worker.report(held(pack.trials[0]), 0.5).accepted);
  ScriptedWorker late(h.port());
  late.join("late");
  late.expect<Drain>();
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->free_slots(); }), 0u);
}

TEST(DispatcherTest, TellsOfFreeSlotsAndWorkers) {
  int calls = 0;
  Harness h([&calls](DispatchOptions& options, ServerOptions&) { options.on_slots_changed = [&calls] { ++calls; }; });
  ScriptedWorker worker(h.port());
  worker.join("w", 3);
  h.wait_until([&] { return calls == 1 && h.dispatcher->free_slots() == 3; });
  h.add_study(2);
  const Pack pack = worker.expect<Pack>();
  const nlohmann::json workers = h.on_io([&] { return h.dispatcher->workers_json(); });
  ASSERT_THAT(workers, SizeIs(1));
  EXPECT_EQ(workers[0].at("name"), "w");
  EXPECT_EQ(workers[0].at("held"), nlohmann::json({pack.trials[0].trial.value, pack.trials[1].trial.value}));
  EXPECT_EQ(workers[0].size(), 17u);
  EXPECT_TRUE(workers[0].at("retraining").is_null());
  worker.vanish();
  h.wait_until([&] { return h.dispatcher->free_slots() == 0 && h.dispatcher->workers_json().empty(); });
}

// ---- poison

TEST(PoisonTest, WhatADeadWorkerHadInTrainingIsTrainedAloneAndItsNeighboursAreCleared) {
  Harness h;
  const StudyId study = h.add_study(4);
  auto first = std::make_unique<ScriptedWorker>(h.port());
  first->join("first", 3, {}, 2);  // two in training, one waits
  const Pack pack = first->expect<Pack>();
  ASSERT_THAT(pack.trials, SizeIs(3));
  first->vanish();
  h.wait_until([&] { return h.dispatcher->connected_workers() == 0; });
  h.advance(seconds(61));
  const auto trial = [&](std::size_t n) { return h.trial(pack.trials[n].trial); };
  h.wait_until([&] { return h.dispatcher->outstanding(study).queued == 4; });
  EXPECT_TRUE(trial(0).alone && trial(1).alone);
  EXPECT_FALSE(trial(2).alone) << "it waited";
  EXPECT_EQ(trial(0).deaths, 0) << "a suspicion is no proof";

  ScriptedWorker second(h.port()), third(h.port());
  second.join("second", 2);
  const Pack alone = second.expect<Pack>();
  ASSERT_THAT(alone.trials, SizeIs(1));
  EXPECT_EQ(held(alone.trials[0]), (Held{pack.trials[0].trial, 2}));
  third.join("third", 4);
  const Pack others = third.expect<Pack>();
  EXPECT_THAT(others.trials, SizeIs(2)) << "the one that waited and the fresh one, not the other suspect: one at a time";
  for (const TrialJob& job : others.trials) EXPECT_TRUE(third.report(held(job), 0.5).accepted);
  second.say(ScriptedWorker::result(held(alone.trials[0]), 0.5));
  EXPECT_TRUE(second.expect<Ack>().accepted);
  h.wait_until([&] { return h.dispatcher->outstanding(study).leased == 1; });
  std::vector<Trial> trials = h.trials_of(study);
  EXPECT_EQ(trials[0].state, TrialState::completed);
  EXPECT_EQ(trials[1].state, TrialState::leased);
}

TEST(PoisonTest, ATrialThatKillsEveryWorkerIsFailedWithASentence) {
  Harness h;
  const StudyId study = h.on_store([](Store& s) {
    StudySpec spec;
    spec.name = spec.dataset = "toy";
    spec.strategy = {{"name", "random"}};
    spec.retries.lost = 1;
    return s.create_study(spec, Harness::toy_dataset(), "/data/features.json");
  });
  h.on_io([&] { h.dispatcher->add_study(Harness::study_of(study)); });
  h.add_trials(study, 1);
  for (int death = 1; death <= 3; ++death) {  // a process that comes again under its name: no lease is waited for
    ScriptedWorker worker(h.port());
    worker.join("w", 4, {}, 0, 100 + death);
    const Pack pack = worker.expect<Pack>();
    ASSERT_THAT(pack.trials, SizeIs(1));
    EXPECT_EQ(pack.trials[0].attempt, death);
    worker.vanish();
    h.wait_until([&] { return h.dispatcher->connected_workers() == 0; });
  }
  ScriptedWorker last(h.port());
  last.join("w", 4, {}, 0, 104);
  for (int i = 0; i < 1000 && h.all_ended().empty(); ++i) std::this_thread::sleep_for(milliseconds(10));
  ASSERT_THAT(h.all_ended(), SizeIs(1));
  EXPECT_EQ(h.all_ended()[0].state, TrialState::failed);
  EXPECT_THAT(h.trials_of(study)[0].error, HasSubstr("its worker died 2 times while it trained nothing but this trial"));
}

TEST(PoisonTest, LossesThatAreNobodysFaultRaiseNoSuspicion) {
  Harness h;
  const StudyId study = h.add_study(1);
  ScriptedWorker stalled(h.port());
  stalled.join("stalled");
  stalled.expect<Pack>();
  h.advance(seconds(61));  // connected, but silent
  h.wait_until([&] { return h.dispatcher->outstanding(study).queued == 1; });
  EXPECT_FALSE(h.trials_of(study)[0].alone);
  {
    ScriptedWorker away(h.port());
    away.join("away");
    away.expect<Pack>();
    h.on_io([&] { h.clock.advance(seconds(59)); });  // nobody was heard: it is the daemon that was away
    away.vanish();
    h.wait_until([&] { return h.dispatcher->connected_workers() <= 1; });
    h.advance(seconds(2));
    h.wait_until([&] { return h.dispatcher->outstanding(study).queued == 1; });
    EXPECT_FALSE(h.trials_of(study)[0].alone);
  }
  ScriptedWorker leaving(h.port());
  leaving.join("leaving");
  leaving.expect<Pack>();
  leaving.say(Leaving{"the batch job ends"});
  leaving.vanish();
  h.wait_until([&] { return h.dispatcher->outstanding(study).queued == 1; });
  EXPECT_FALSE(h.trials_of(study)[0].alone);
  EXPECT_EQ(h.trials_of(study)[0].lost, 2) << "what crossed a good-bye is preempted";
}

TEST(PoisonTest, ABusyWorkerRunsDryForATrialThatMustBeAlone) {
  Harness h;
  const StudyId study = h.add_study(20);
  ScriptedWorker worker(h.port());
  worker.join("w", 2, {}, 2);
  const Pack pack = worker.expect<Pack>();
  ASSERT_THAT(pack.trials, SizeIs(2));
  EXPECT_TRUE(worker.report(held(pack.trials[0]), 0, Outcome::oom).accepted);
  EXPECT_EQ(h.trial(pack.trials[0].trial).failures, 0) << "the first time is free";
  EXPECT_TRUE(worker.report(held(pack.trials[1]), 0.5).accepted);
  const Pack alone = worker.expect<Pack>();
  ASSERT_THAT(alone.trials, SizeIs(1));
  EXPECT_EQ(held(alone.trials[0]), (Held{pack.trials[0].trial, 2}));
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->free_slots(); }), 0u);
  EXPECT_TRUE(worker.report(held(alone.trials[0]), 0.5).accepted);
  EXPECT_THAT(worker.expect<Pack>().trials, SizeIs(2)) << "and goes on as before";
  EXPECT_EQ(h.dispatcher->outstanding(study).leased, 2u);
}

TEST(PoisonTest, AStudyThatOnlyFailsIsPausedOnceAndSaysWhy) {
  Harness h;
  const StudyId study = h.add_study(12, 0, true, 0);
  ScriptedWorker worker(h.port());
  worker.join("w", 1);
  for (int n = 0; n < 10; ++n) {
    EXPECT_TRUE(worker.report(held(worker.expect<Pack>().trials.at(0)), 0, Outcome::failed).accepted);
  }
  h.wait_until([&] { return !h.paused.empty(); });
  const auto record = h.on_store([study](Store& s) { return *s.study(study); });
  EXPECT_EQ(record.state, StudyState::paused);
  EXPECT_THAT(record.error, HasSubstr("10 failures in a row"));
  EXPECT_THAT(event_kinds(h), ::testing::Contains("study_paused"));
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->outstanding(study).queued; }), 2u) << "nothing more is leased";
  h.on_store([study](Store& s) { return s.set_study_state(study, StudyState::running); });
  h.on_io([&] { h.dispatcher->set_paused(study, false); });
  EXPECT_TRUE(worker.report(held(worker.expect<Pack>().trials.at(0)), 0, Outcome::failed).accepted);
  EXPECT_TRUE(worker.report(held(worker.expect<Pack>().trials.at(0)), 0.5).accepted);
  EXPECT_THAT(h.on_io([&] { return h.paused; }), SizeIs(1));
}

TEST(DispatcherTest, ManyWorkersUnderRandomTroubleFinishEveryTrialOnce) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  Harness h([](DispatchOptions& options, ServerOptions&) { options.lease = milliseconds(1000); });
  const StudyId study = h.add_study(60);
  std::size_t completed = 0;
  for (int round = 0; round < 400 && completed < 60; ++round) {
    h.on_store([](Store&) {});  // what the last worker said is committed, and heard of
    completed = h.all_ended().size();
    if (completed == 60) break;
    // Those that must be trained alone may have to wait for the one that is, until its lease has run out.
    const auto trials = h.trials_of(study);
    const bool any = std::ranges::any_of(trials, [](const Trial& t) { return t.state == TrialState::queued && !t.alone; });
    if (!any || h.on_io([&] { return h.dispatcher->outstanding(study).queued; }) == 0) h.advance(seconds(2));
    ScriptedWorker worker(h.port());
    worker.join("w" + std::to_string(round % 3), 1 + static_cast<int>(rng.below(4)));
    const auto first = worker.hear();
    if (!first || !std::holds_alternative<Pack>(*first)) continue;
    bool reported = false;
    for (const TrialJob& job : std::get<Pack>(*first).trials) {
      if (rng.below(3) == 0) continue;
      reported = true;
      worker.say(ScriptedWorker::result(held(job), 0.5));
      if (rng.below(4) == 0) worker.say(ScriptedWorker::result(held(job), 0.75));
    }
    if (reported && rng.below(2) == 0) worker.hear();  // silence is all that is owed to one that reported nothing
    worker.vanish();
    h.wait_until([&] { return h.dispatcher->connected_workers() == 0; });
  }
  const std::vector<Ended> ended = h.all_ended();
  ASSERT_THAT(ended, SizeIs(60));
  std::set<std::int64_t> asked;
  for (std::size_t i = 0; i < ended.size(); ++i) {
    EXPECT_EQ(ended[i].told_index, static_cast<std::int64_t>(i));
    asked.insert(ended[i].ask_index);
  }
  EXPECT_THAT(asked, SizeIs(60));
  for (const Trial& trial : h.trials_of(study)) EXPECT_EQ(trial.state, TrialState::completed);
}

}  // namespace
}  // namespace fusion
