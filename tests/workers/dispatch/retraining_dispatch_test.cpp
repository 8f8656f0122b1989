// Retrainings through the dispatcher, with scripted workers over real sockets and a real store.
#include "workers/dispatch/retraining_dispatch.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "store/store_reader.h"
#include "tests/workers/dispatch/harness.h"
#include "workers/protocol/retraining_data.h"

namespace fusion {
namespace {

using protocol::Cancel;
using protocol::GiveBack;
using protocol::HandBack;
using protocol::Heartbeat;
using protocol::HeldRetraining;
using protocol::Pack;
using protocol::RetrainingAck;
using protocol::RetrainingEpochReport;
using protocol::RetrainingLease;
using protocol::RetrainingProgressReport;
using protocol::RetrainingResult;
using testing::Harness;
using testing::ScriptedWorker;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using std::chrono::milliseconds;
using std::chrono::seconds;

RetrainingId submit(Harness& h, int priority = 0, int retries = 1, int processes = 1) {
  NewRetraining given = Harness::small_retraining();
  given.options.processes = processes;
  given.priority = priority;
  given.retries = retries;
  return h.submit(given);
}

/// One that says what it can do: hello with these figures, none where they are left out.
struct Able {
  std::optional<int> processes{};
  std::optional<double> longest_epoch_s{}, first_epoch_s{};
  std::string device = "cpu";
};
void join(ScriptedWorker& worker, const std::string& name, const Able& able) {
  protocol::Hello hello;
  hello.name = name;
  hello.host = hello.code_version = hello.torch_version = "x";
  hello.device = able.device;
  hello.processes = able.processes;
  hello.condition.longest_epoch_s = able.longest_epoch_s;
  hello.condition.first_epoch_s = able.first_epoch_s;
  worker.say(hello);
  worker.expect<protocol::Welcome>();
}
/// What it waits for; empty: for nothing but its turn.
std::string waits(Harness& h, RetrainingId id) {
  return h.on_io([&] {
    const auto reasons = h.dispatcher->why_retrainings_wait();
    const auto found = reasons.find(id);
    return found == reasons.end() ? std::string() : found->second;
  });
}

RetrainingState state(Harness& h, RetrainingId id) {
  return h.on_store([id](Store& s) { return s.retraining(id)->state; });
}
int attempts(Harness& h, RetrainingId id) {
  return h.on_store([id](Store& s) { return s.retraining(id)->job.attempt; });
}

HeldRetraining what(const RetrainingLease& lease) { return {lease.job.retraining, lease.job.attempt}; }

RetrainingResult result(HeldRetraining held, Outcome outcome = Outcome::completed) {
  RetrainingOutcome o;
  o.retraining = held.retraining;
  o.attempt = held.attempt;
  o.outcome = outcome;
  if (outcome == Outcome::completed) {
    o.score.emplace();
    o.score->dev_score = 0.75;
    o.score->batch = 32;
  } else {
    o.error = "it went wrong";
  }
  return {o};
}

RetrainingEpochReport epoch(HeldRetraining held, int number) { return {held, {number, 2, 1.5, 1.25, 0.5, 1e-3, 2, 100}}; }

TEST(RetrainingDispatchTest, WhoCannotRetrainOnDataStillSearchesOnIt) {
  Harness h;
  ScriptedWorker far(h.port()), near(h.port());
  far.join("far");
  Heartbeat beat;
  beat.condition.unreadable = {{protocol::retraining_data(std::string(64, 'd')), "the artifacts folder is not on this host"}};
  far.say(beat);
  h.wait_until([&] { return !h.dispatcher->workers_json().at(0).at("condition").at("unreadable").empty(); });
  const RetrainingId id = submit(h);
  h.add_study(1);
  EXPECT_EQ(far.expect<Pack>().trials.size(), 1u);
  EXPECT_EQ(state(h, id), RetrainingState::queued);
  near.join("near");
  EXPECT_EQ(near.expect<RetrainingLease>().job.retraining, id);
}

TEST(RetrainingDispatchTest, IsLeasedReportedWatchedAndAcknowledged) {
  Harness h;
  const RetrainingId id = submit(h);
  ScriptedWorker worker(h.port());
  worker.join("w", 4);
  const auto lease = worker.expect<RetrainingLease>();
  EXPECT_EQ(lease.job.retraining, id);
  EXPECT_EQ(lease.job.attempt, 1);
  EXPECT_EQ(lease.job.seed, 11u);
  EXPECT_EQ(lease.job.options.epochs, 2);
  EXPECT_THAT(lease.job.folder, HasSubstr("/data/artifacts/retraining-1-"));
  worker.say(RetrainingProgressReport{what(lease), {1, 3, 50, 100, 25, 8.5}});
  worker.say(epoch(what(lease), 1));
  auto ack = worker.expect<RetrainingAck>();
  EXPECT_TRUE(ack.what == "epoch" && ack.epoch == 1 && ack.accepted);
  const auto progress = h.on_io([&] { return h.dispatcher->retrainings().progress(id); });
  EXPECT_EQ(progress.at("rows"), 50);
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->workers_json(); })[0].at("retraining"), id.value);
  worker.say(epoch(what(lease), 1));
  EXPECT_FALSE(worker.expect<RetrainingAck>().accepted) << "that epoch is known";
  worker.say(result(what(lease)));
  ack = worker.expect<RetrainingAck>();
  EXPECT_TRUE(ack.what == "result" && ack.accepted);
  EXPECT_EQ(state(h, id), RetrainingState::completed);
  worker.say(result(what(lease)));
  EXPECT_FALSE(worker.expect<RetrainingAck>().accepted) << "a result is stored once";
  EXPECT_TRUE(h.on_io([&] { return h.dispatcher->retrainings().progress(id).is_null(); }));
}

TEST(RetrainingDispatchTest, OneOfSeveralProcessesGoesToAWorkerThatCanHaveThem) {
  Harness h;
  const RetrainingId four = submit(h, 5, 1, 4);
  EXPECT_EQ(waits(h, four), "waits for a worker; none is connected");
  ScriptedWorker simulated(h.port()), two(h.port());
  join(simulated, "simulated", {0});
  EXPECT_EQ(waits(h, four), "waits for a worker that retrains; those that are connected train trials only");
  join(two, "two", {2});
  EXPECT_EQ(waits(h, four), "waits for a worker with 4 GPUs; the largest connected has 2");
  const RetrainingId one = submit(h);
  EXPECT_EQ(two.expect<RetrainingLease>().job.retraining, one) << "the first in the order keeps nobody from what others can do";
  ScriptedWorker eight(h.port());
  join(eight, "eight", {8});
  EXPECT_EQ(eight.expect<RetrainingLease>().job.retraining, four);
  EXPECT_EQ(waits(h, four), "");
}

TEST(RetrainingDispatchTest, AWorkerFromBeforeThatSaysNothingOfAllThisIsGivenAny) {
  Harness h;
  ScriptedWorker old(h.port());
  old.say_raw(R"({"type": "hello", "protocol": 4, "name": "old", "host": "x", "pid": 1, "device": "cuda:0", "pack": 1, "slots": 2, "code_version": "x",
                  "torch_version": "x", "held": [], "retrainings": [], "job": "", "node": "",
                  "condition": {"time_left_s": null, "trial_s": null, "fits": null, "problem": "", "devices": [], "unreadable": []}})");
  old.expect<protocol::Welcome>();
  EXPECT_TRUE(h.on_io([&] { return h.dispatcher->workers_json(); }).at(0).at("processes").is_null());
  const RetrainingId four = submit(h, 0, 1, 4);
  EXPECT_EQ(old.expect<RetrainingLease>().job.retraining, four);
}

TEST(RetrainingDispatchTest, TheSmallestWorkerThatIsEnoughIsTaken) {
  Harness h;
  ScriptedWorker large(h.port()), small(h.port()), any(h.port());
  join(large, "a-large", {4});
  join(small, "small", {1});
  join(any, "any", {});
  const RetrainingId one = submit(h);
  EXPECT_EQ(small.expect<RetrainingLease>().job.retraining, one);
  const RetrainingId four = submit(h, 0, 1, 4);
  EXPECT_EQ(large.expect<RetrainingLease>().job.retraining, four);
  const RetrainingId cpu = submit(h, 0, 1, 16);
  EXPECT_EQ(any.expect<RetrainingLease>().job.retraining, cpu) << "on the CPU any number";
}

TEST(RetrainingDispatchTest, AWorkerWithoutTimeForAnEpochOfWhichNothingIsKnownGetsNone) {
  Harness h;
  const RetrainingId id = submit(h);
  ScriptedWorker brief(h.port());
  join(brief, "brief", {{}, 47.0, 48.0});
  EXPECT_EQ(waits(h, id), "waits for a worker with more time: its next epoch takes about 48 s, and the most that a connected one has for it is 47 s");
  Heartbeat beat;
  beat.condition.longest_epoch_s = 48;
  beat.condition.first_epoch_s = 48;
  brief.say(beat);
  EXPECT_EQ(brief.expect<RetrainingLease>().job.retraining, id);
}

TEST(RetrainingDispatchTest, WhatItsEpochsTookDecidesWhoHasTimeForTheNext) {
  Harness h;
  const RetrainingId id = submit(h);
  ScriptedWorker first(h.port());
  join(first, "first", {{}, 1000.0, 1.0, "cuda:1"});
  const auto lease = first.expect<RetrainingLease>();
  RetrainingEpochReport done = epoch(what(lease), 1);
  done.epoch.seconds = 100;
  first.say(done);
  EXPECT_TRUE(first.expect<RetrainingAck>().accepted);
  Heartbeat beat;
  beat.retrainings = {what(lease)};
  beat.condition.longest_epoch_s = 0;
  first.say(beat);
  first.say(GiveBack{{}, "no time", {what(lease)}});
  h.wait_until([&] { return !h.dispatcher->retrainings().involves("first"); });
  EXPECT_EQ(state(h, id), RetrainingState::queued) << "it is not given back to who gave it back";
  const Workload load = h.on_io([&] { return h.dispatcher->workload(); });
  ASSERT_EQ(load.retrainings.size(), 1u);
  EXPECT_EQ(load.retrainings[0].epoch_gpu_s, 100);
  EXPECT_FALSE(load.retrainings[0].epoch_cpu_s);
  EXPECT_EQ(load.workers.at(0).longest_epoch_s, 0) << "so a pool knows it too";
  ScriptedWorker brief(h.port()), longer(h.port());
  join(brief, "brief", {{}, 99.0, 1.0, "cuda:0"});
  EXPECT_THAT(waits(h, id), HasSubstr("its next epoch takes about 100 s, and the most that a connected one has for it is 99 s"));
  join(longer, "longer", {{}, 200.0, 1.0, "cuda:0"});
  EXPECT_EQ(longer.expect<RetrainingLease>().job.attempt, 2);
}

TEST(RetrainingDispatchTest, ATimeThatWasSaidLongAgoIsOverByNow) {
  Harness h;
  ScriptedWorker worker(h.port());
  join(worker, "w", {{}, 50.0, 20.0});
  h.advance(seconds(40));
  const RetrainingId id = submit(h);
  EXPECT_THAT(waits(h, id), HasSubstr("the most that a connected one has for it is 10 s"));
}

TEST(RetrainingDispatchTest, AWorkerRunsDryForItAndGetsTrialsAgainAfterwards) {
  Harness h;
  h.add_study(20);
  ScriptedWorker worker(h.port());
  worker.join("w", 2);
  const Pack pack = worker.expect<Pack>();
  ASSERT_EQ(pack.trials.size(), 2u);
  submit(h);
  EXPECT_TRUE(worker.report(testing::held(pack.trials[0]), 0.5).accepted);
  EXPECT_TRUE(worker.report(testing::held(pack.trials[1]), 0.5).accepted);
  const auto lease = worker.expect<RetrainingLease>();  // and no pack before it, though the study fills every slot
  worker.say(result(what(lease)));
  EXPECT_TRUE(worker.expect<RetrainingAck>().accepted);
  EXPECT_EQ(worker.expect<Pack>().trials.size(), 2u);
}

TEST(RetrainingDispatchTest, AStudyKeepsHalfOfTheWorkersHoweverManyRetrainingsWait) {
  Harness h;
  h.add_study(40);
  for (int i = 0; i < 6; ++i) submit(h);
  std::vector<std::unique_ptr<ScriptedWorker>> workers;
  std::vector<std::optional<Pack>> packs;
  int retraining = 0;
  // One of one, of two and of three retrains. The others train trials, which they keep.
  for (int i = 0; i < 3; ++i) {
    workers.push_back(std::make_unique<ScriptedWorker>(h.port()));
    workers.back()->join("w" + std::to_string(i), 1);
    const auto message = workers.back()->hear();
    ASSERT_TRUE(message);
    const auto* pack = std::get_if<Pack>(&*message);
    packs.push_back(pack != nullptr ? std::optional(*pack) : std::nullopt);
    retraining += pack == nullptr ? 1 : 0;
  }
  EXPECT_EQ(retraining, 1);
  EXPECT_FALSE(packs[0]);
  // Of four two do: the new one, which is idle.
  workers.push_back(std::make_unique<ScriptedWorker>(h.port()));
  workers.back()->join("w3", 1);
  workers.back()->expect<RetrainingLease>();
  for (int i = 1; i <= 2; ++i) {
    ASSERT_TRUE(packs[i]);
    EXPECT_TRUE(workers[i]->report(testing::held(packs[i]->trials[0]), 0.5).accepted);
    EXPECT_EQ(workers[i]->expect<Pack>().trials.size(), 1u) << "the study has its share";
  }
}

TEST(RetrainingDispatchTest, TrialsThatComeWhileEverybodyRetrainsGetAWorkerAfterItsEpoch) {
  Harness h;
  const RetrainingId first = submit(h, 5), second = submit(h);
  ScriptedWorker a(h.port()), b(h.port());
  a.join("a", 1);
  const auto lease_a = a.expect<RetrainingLease>();
  EXPECT_EQ(lease_a.job.retraining, first) << "the higher priority first";
  b.join("b", 1);
  const auto lease_b = b.expect<RetrainingLease>();
  EXPECT_EQ(lease_b.job.retraining, second);
  h.add_study(3);
  const auto asked = b.expect<HandBack>();
  EXPECT_THAT(asked.retrainings, ElementsAre(what(lease_b))) << "the last in the order";
  b.say(epoch(what(lease_b), 1));
  EXPECT_TRUE(b.expect<RetrainingAck>().accepted);
  b.say(GiveBack{{}, "asked for", {what(lease_b)}});
  const Pack pack = b.expect<Pack>();
  EXPECT_EQ(state(h, second), RetrainingState::queued);
  for (Pack next = pack;; next = b.expect<Pack>()) {
    EXPECT_TRUE(b.report(testing::held(next.trials[0]), 0.5).accepted);
    if (h.all_ended().size() == 3) break;
  }
  a.say(result(what(lease_a)));
  EXPECT_TRUE(a.expect<RetrainingAck>().accepted);
  const auto again = a.expect<RetrainingLease>();
  EXPECT_EQ(again.job.retraining, second);
  EXPECT_EQ(again.job.attempt, 2);
}

TEST(RetrainingDispatchTest, ADeadWorkerLosesItAndItsLateResultIsFencedByTheNextAttempt) {
  Harness h;
  const RetrainingId id = submit(h, 0, 0);
  auto dead = std::make_unique<ScriptedWorker>(h.port());
  dead->join("dead");
  const auto lease = dead->expect<RetrainingLease>();
  dead->vanish();
  h.wait_until([&] { return h.dispatcher->connected_workers() == 0; });
  ScriptedWorker heir(h.port());
  heir.join("heir");
  h.advance(seconds(59));
  heir.say(Heartbeat{});
  EXPECT_EQ(state(h, id), RetrainingState::leased) << "the lease runs on";
  h.advance(seconds(1));
  heir.say(Heartbeat{});
  const auto again = heir.expect<RetrainingLease>();
  EXPECT_EQ(again.job.attempt, 2) << "a lost attempt uses up no retry";
  EXPECT_EQ(again.job.folder, lease.job.folder);
  ScriptedWorker back(h.port());
  back.join("dead", 1, {});
  back.say(epoch(what(lease), 1));
  EXPECT_TRUE(back.expect<RetrainingAck>().accepted) << "what the lost attempt trained is kept";
  back.say(result(what(lease)));
  EXPECT_FALSE(back.expect<RetrainingAck>().accepted);
  EXPECT_EQ(state(h, id), RetrainingState::leased);
  heir.say(result(what(again)));
  EXPECT_TRUE(heir.expect<RetrainingAck>().accepted);
}

TEST(RetrainingDispatchTest, AWorkerThatComesBackInTimeGoesOn) {
  Harness h;
  const RetrainingId id = submit(h);
  auto worker = std::make_unique<ScriptedWorker>(h.port());
  worker->join("w");
  const auto lease = worker->expect<RetrainingLease>();
  worker->vanish();
  h.wait_until([&] { return h.dispatcher->connected_workers() == 0; });
  ScriptedWorker again(h.port());
  protocol::Hello hello;
  hello.name = "w";
  hello.host = hello.device = hello.code_version = hello.torch_version = "x";
  hello.retrainings = {what(lease)};
  again.say(hello);
  again.expect<protocol::Welcome>();
  again.say(result(what(lease)));
  EXPECT_TRUE(again.expect<RetrainingAck>().accepted);
  EXPECT_EQ(attempts(h, id), 1);
}

TEST(RetrainingDispatchTest, AfterARestartTheWorkerThatStillTrainsItKeepsItsAttempt) {
  Harness h;
  const RetrainingId id = submit(h);
  auto worker = std::make_unique<ScriptedWorker>(h.port());
  worker->join("w");
  const auto lease = worker->expect<RetrainingLease>();
  worker->vanish();
  h.end();
  h.begin();
  EXPECT_EQ(h.on_store([](Store& s) { return s.requeue_leased_retrainings(); }), 1);
  const RetrainingRecord record = *h.on_store([id](Store& s) { return s.retraining(id); });
  h.on_io([&] { h.dispatcher->retrainings().submit({record.job, 0, false, true}); });
  ScriptedWorker other(h.port());
  other.join("other");
  ScriptedWorker again(h.port());
  protocol::Hello hello;
  hello.name = "w";
  hello.host = hello.device = hello.code_version = hello.torch_version = "x";
  hello.retrainings = {what(lease), {RetrainingId{99}, 1}};
  again.say(hello);
  again.expect<protocol::Welcome>();
  EXPECT_THAT(again.expect<Cancel>().retrainings, ElementsAre(HeldRetraining{RetrainingId{99}, 1})) << "nobody knows it";
  again.say(result(what(lease)));
  EXPECT_TRUE(again.expect<RetrainingAck>().accepted);
  EXPECT_EQ(attempts(h, id), 1);
}

TEST(RetrainingDispatchTest, FailuresUseUpRetriesPreemptionsDoNot) {
  Harness h;
  const RetrainingId id = submit(h, 0, 1);
  ScriptedWorker worker(h.port());
  worker.join("w");
  for (int attempt = 1; attempt <= 2; ++attempt) {
    const auto lease = worker.expect<RetrainingLease>();
    EXPECT_EQ(lease.job.attempt, attempt);
    worker.say(GiveBack{{}, "preempted", {what(lease)}});
  }
  auto lease = worker.expect<RetrainingLease>();
  worker.say(result(what(lease), Outcome::oom));
  EXPECT_TRUE(worker.expect<RetrainingAck>().accepted);
  lease = worker.expect<RetrainingLease>();
  EXPECT_EQ(lease.job.attempt, 4);
  worker.say(result(what(lease), Outcome::failed));
  EXPECT_TRUE(worker.expect<RetrainingAck>().accepted);
  EXPECT_EQ(state(h, id), RetrainingState::failed);
  const auto log = StoreReader::open(h.folder / "fusion.db").retraining(id)->at("attempt_log");
  std::vector<std::string> outcomes;
  for (const auto& attempt : log) outcomes.push_back(attempt.at("outcome"));
  EXPECT_THAT(outcomes, ElementsAre("preempted", "preempted", "oom", "failed"));
}

TEST(RetrainingDispatchTest, PausedWhileLeasedItIsHandedBackAndWaitsForResume) {
  Harness h;
  const RetrainingId id = submit(h);
  ScriptedWorker worker(h.port());
  worker.join("w");
  const auto lease = worker.expect<RetrainingLease>();
  EXPECT_TRUE(h.on_store([id](Store& s) { return s.pause_retraining(id).changed; }));
  h.on_io([&] { h.dispatcher->retrainings().pause(id, "paused"); });
  EXPECT_THAT(worker.expect<HandBack>().retrainings, ElementsAre(what(lease)));
  worker.say(epoch(what(lease), 1));
  EXPECT_TRUE(worker.expect<RetrainingAck>().accepted) << "the epoch it was in";
  worker.say(GiveBack{{}, "asked for", {what(lease)}});
  h.wait_until([&] { return !h.dispatcher->retrainings().involves("w"); });
  EXPECT_EQ(state(h, id), RetrainingState::paused);
  EXPECT_EQ(attempts(h, id), 1);
  EXPECT_TRUE(h.on_store([id](Store& s) { return s.resume_retraining(id).changed; }));
  h.on_io([&] { h.dispatcher->retrainings().resume(id); });
  EXPECT_EQ(worker.expect<RetrainingLease>().job.attempt, 2);
}

TEST(RetrainingDispatchTest, CancelledItIsStoppedAndTheWorkerIsFreeOnceItAnswered) {
  Harness h;
  const RetrainingId id = submit(h), next = submit(h);
  ScriptedWorker worker(h.port());
  worker.join("w");
  const auto lease = worker.expect<RetrainingLease>();
  h.on_store([id](Store& s) { return s.cancel_retraining(id).changed; });
  h.on_io([&] { h.dispatcher->retrainings().cancel(id, "somebody asked"); });
  const auto cancel = worker.expect<Cancel>();
  EXPECT_THAT(cancel.retrainings, ElementsAre(what(lease)));
  worker.say(epoch(what(lease), 1));
  EXPECT_FALSE(worker.expect<RetrainingAck>().accepted);
  worker.say(result(what(lease), Outcome::cancelled));
  EXPECT_FALSE(worker.expect<RetrainingAck>().accepted) << "the cancellation is recorded already";
  EXPECT_EQ(worker.expect<RetrainingLease>().job.retraining, next);
  EXPECT_EQ(state(h, id), RetrainingState::cancelled);
}

TEST(RetrainingDispatchTest, WhatAHeartbeatDoesNotNameAnyMoreIsLost) {
  Harness h;
  const RetrainingId id = submit(h);
  ScriptedWorker worker(h.port());
  worker.join("w");
  const auto lease = worker.expect<RetrainingLease>();
  worker.say(Heartbeat{});  // the lease may have crossed it
  worker.say(Heartbeat{{}, {what(lease)}});
  worker.say(Heartbeat{});
  EXPECT_EQ(worker.expect<RetrainingLease>().job.attempt, 2);
  EXPECT_EQ(state(h, id), RetrainingState::leased);
}

}  // namespace
}  // namespace fusion
