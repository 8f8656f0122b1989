// Retrainings from the worker's end, against a scripted daemon.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "tests/workers/client/scripted_daemon.h"
#include "workers/client/worker_client.h"

namespace fusion {
namespace {

using namespace std::chrono_literals;
using protocol::Cancel;
using protocol::Drain;
using protocol::GiveBack;
using protocol::HandBack;
using protocol::HeldRetraining;
using protocol::Leaving;
using protocol::RetrainingAck;
using protocol::RetrainingEpochReport;
using protocol::RetrainingLease;
using protocol::RetrainingProgressReport;
using protocol::RetrainingResult;
using testing::ScriptedDaemon;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

HeldRetraining held(std::int64_t id, int attempt = 1) { return {RetrainingId{id}, attempt}; }

RetrainingLease lease_of(std::int64_t id) {
  RetrainingLease lease;
  lease.job.retraining = RetrainingId{id};
  lease.job.attempt = 1;
  lease.job.architecture.steps.push_back({{0, 0}});
  lease.job.dataset_path = "/data/features.json";
  lease.job.dataset_digest = std::string(64, 'a');
  lease.job.folder = "/data/artifacts/retraining";
  return lease;
}

RetrainingEpoch epoch_of(int number) { return {number, 2, 0.5, 0.25, 0.75, 1e-3, 2, 100}; }

RetrainingOutcome completed() {
  RetrainingOutcome outcome;
  outcome.score.emplace();
  outcome.score->dev_score = 0.5;
  outcome.score->batch = 32;
  return outcome;
}

/// Reports an epoch, then waits for leave to finish or for a word to stop.
class FakeRetrainer {
 public:
  void operator()(RetrainingSession& session) {
    session.on_progress({1, 3, 10, 100, 50, 5});
    session.on_epoch(epoch_of(1));
    while (!may_finish_) {
      if (session.cancel().stop_requested()) return session.on_end(Outcome::cancelled, "stopped amid an epoch");
      if (session.hand_back().stop_requested()) {
        session.on_epoch(epoch_of(2));
        return session.on_end(Outcome::preempted, "stopped after an epoch");
      }
      std::this_thread::sleep_for(1ms);
    }
    session.on_end(completed());
  }
  void finish() { may_finish_ = true; }

 private:
  std::atomic<bool> may_finish_{false};
};

class RetrainingClientTest : public ::testing::Test {
 protected:
  void start(RetrainFunction retrain, std::chrono::milliseconds grace = 0ms, const WallTime::Options& wall = {}) {
    WorkerClientOptions options;
    options.url = parse_daemon_url(daemon_.url());
    options.name = "w";
    options.handle_signals = false;
    options.grace = grace;
    options.send_wait = send_wait_;
    options.wall = wall;
    options.processes = 3;
    options.backoff_min = 10ms;
    options.backoff_max = 50ms;
    options.leave_wait = 2000ms;
    const auto no_trials = [](PackSession& session) { session.end_rest(Outcome::failed, "no trials here"); };
    client_ = std::make_unique<WorkerClient>(options, no_trials, std::move(retrain));
    thread_ = std::thread([this] { client_->run(); });
  }
  void start(FakeRetrainer& retrainer, std::chrono::milliseconds grace = 0ms, const WallTime::Options& wall = {}) {
    start([&retrainer](RetrainingSession& session) { retrainer(session); }, grace, wall);
  }
  /// Lease, progress, first epoch.
  void begin(std::int64_t id) {
    daemon_.send(lease_of(id));
    EXPECT_EQ(daemon_.expect<RetrainingProgressReport>().progress.rows, 10);
    EXPECT_EQ(daemon_.expect<RetrainingEpochReport>().what, held(id));
  }
  void acknowledge(const std::string& what, std::int64_t id, int epoch = 0) { daemon_.send(RetrainingAck{what, held(id), epoch, true}); }
  ~RetrainingClientTest() override {
    if (!thread_.joinable()) return;
    client_->leave("the test is over");
    daemon_.die();
    thread_.join();
  }

  ScriptedDaemon daemon_;
  std::chrono::milliseconds send_wait_{0};  // set before `start`
  std::unique_ptr<WorkerClient> client_;
  std::thread thread_;
};

TEST_F(RetrainingClientTest, ReportsAreKeptOverReconnectsUntilTheyAreAcknowledged) {
  FakeRetrainer retrainer;
  start(retrainer);
  EXPECT_THAT(daemon_.welcome().retrainings, IsEmpty());
  begin(7);
  daemon_.hang_up();
  EXPECT_THAT(daemon_.welcome().retrainings, ElementsAre(held(7))) << "it goes on meanwhile";
  EXPECT_EQ(daemon_.expect<RetrainingEpochReport>().epoch.epoch, 1);
  acknowledge("epoch", 7, 1);
  retrainer.finish();
  const auto result = daemon_.expect<RetrainingResult>();
  EXPECT_EQ(result.outcome.retraining, RetrainingId{7});
  EXPECT_EQ(result.outcome.outcome, Outcome::completed);
  EXPECT_EQ(result.outcome.device, "cpu");
  daemon_.hang_up();
  EXPECT_THAT(daemon_.welcome().retrainings, ElementsAre(held(7))) << "the result is not acknowledged";
  EXPECT_TRUE(daemon_.expect<RetrainingResult>() == result);
  acknowledge("result", 7);
  daemon_.send(lease_of(8));
  daemon_.hang_up();
  EXPECT_THAT(daemon_.welcome().retrainings, ::testing::Not(::testing::Contains(held(7))));
}

TEST_F(RetrainingClientTest, HandedBackAfterItsEpoch) {
  FakeRetrainer retrainer;
  start(retrainer);
  daemon_.welcome();
  begin(7);
  daemon_.send(HandBack{{held(7), held(9)}, "paused"});
  EXPECT_EQ(daemon_.expect<RetrainingEpochReport>().epoch.epoch, 2);
  EXPECT_THAT(daemon_.expect<GiveBack>().retrainings, ElementsAre(held(7)));
  daemon_.hang_up();
  EXPECT_THAT(daemon_.welcome().retrainings, IsEmpty());
  EXPECT_EQ(daemon_.expect<RetrainingEpochReport>().epoch.epoch, 1) << "its epochs are kept: nobody trains them again";
  EXPECT_EQ(daemon_.expect<RetrainingEpochReport>().epoch.epoch, 2);
}

TEST_F(RetrainingClientTest, CancelledItAnswersWithTheReason) {
  FakeRetrainer retrainer;
  start(retrainer);
  daemon_.welcome();
  begin(7);
  daemon_.send(Cancel{{}, "somebody asked", {held(7)}});
  const auto result = daemon_.expect<RetrainingResult>();
  EXPECT_EQ(result.outcome.outcome, Outcome::cancelled);
  EXPECT_EQ(result.outcome.error, "somebody asked");
}

TEST_F(RetrainingClientTest, LeavingItGivesBackAtOnceOrAfterTheEpochWithinTheGrace) {
  FakeRetrainer retrainer;
  start(retrainer, 60s);
  daemon_.welcome();
  begin(7);
  client_->leave("the batch job ends");
  daemon_.expect<Leaving>();
  EXPECT_EQ(daemon_.expect<RetrainingEpochReport>().epoch.epoch, 2);
  EXPECT_THAT(daemon_.expect<GiveBack>().retrainings, ElementsAre(held(7)));
  acknowledge("epoch", 7, 1);
  acknowledge("epoch", 7, 2);
  daemon_.expect_close();
  thread_.join();
}

/// Stopped, it goes on sending until it has sent all, or is told that this is no use.
class FakeSender {
 public:
  void operator()(RetrainingSession& session) {
    session.on_epoch(epoch_of(1));
    while (!session.cancel().stop_requested()) std::this_thread::sleep_for(1ms);
    stopped_ = true;
    while (!sent_ && !session.abandon().stop_requested()) std::this_thread::sleep_for(1ms);
    session.on_end(Outcome::cancelled, sent_ ? "sent" : "abandoned");
  }
  void wait_until_stopped() const {
    while (!stopped_) std::this_thread::sleep_for(1ms);
  }
  void finish() { sent_ = true; }

 private:
  std::atomic<bool> stopped_{false}, sent_{false};
};

TEST_F(RetrainingClientTest, LeavingWithoutGraceWhatIsBeingSentGoesOnForAWhile) {
  FakeSender sender;
  send_wait_ = 60s;
  start([&sender](RetrainingSession& session) { sender(session); });
  daemon_.welcome();
  daemon_.send(lease_of(7));
  daemon_.expect<RetrainingEpochReport>();
  client_->leave("the batch job ends");
  daemon_.expect<Leaving>();
  sender.wait_until_stopped();
  sender.finish();
  EXPECT_THAT(daemon_.expect<GiveBack>().retrainings, ElementsAre(held(7)));
  acknowledge("epoch", 7, 1);
  daemon_.expect_close();
  thread_.join();
}

TEST_F(RetrainingClientTest, WhatIsBeingSentIsAbandonedInTheEndAndAtOnceWhenNobodyWantsIt) {
  FakeSender slow;
  send_wait_ = 10ms;
  start([&slow](RetrainingSession& session) { slow(session); });
  daemon_.welcome();
  daemon_.send(lease_of(7));
  daemon_.expect<RetrainingEpochReport>();
  daemon_.send(Cancel{{}, "somebody asked", {held(7)}});
  EXPECT_EQ(daemon_.expect<RetrainingResult>().outcome.error, "somebody asked");
  daemon_.send(lease_of(8));
  daemon_.expect<RetrainingEpochReport>();
  client_->leave("the batch job ends");
  daemon_.expect<Leaving>();
  EXPECT_THAT(daemon_.expect<GiveBack>().retrainings, ElementsAre(held(8)));
}

TEST_F(RetrainingClientTest, SaysHowLongAnEpochMayBeAndHowManyProcesses) {
  FakeRetrainer retrainer;
  start(retrainer, 0ms, {5'020s, 60s, 20s});
  const protocol::Hello hello = daemon_.welcome();
  EXPECT_EQ(hello.processes, 3);
  EXPECT_GT(hello.condition.longest_epoch_s.value(), 3900);
  EXPECT_LE(hello.condition.longest_epoch_s.value(), 4000) << "in 5000 s, with a quarter to spare";
  EXPECT_EQ(hello.condition.first_epoch_s, 48) << "of 60 s";
}

TEST_F(RetrainingClientTest, HandsBackBehindTheLastEpochThatItsWallTimeAllowsAndTakesNoOther) {
  const auto slow = [](RetrainingSession& session) {
    RetrainingEpoch done = epoch_of(1);
    done.seconds = 200;
    session.on_epoch(done);
    while (!session.hand_back().stop_requested()) std::this_thread::sleep_for(1ms);
    EXPECT_FALSE(session.cancel().stop_requested());
    session.on_epoch(epoch_of(2));
    session.on_end(Outcome::preempted, "stopped after an epoch");
  };
  start(slow, 0ms, {400s, 60s, 20s});  // 380 s are enough for the second epoch, not for a third
  daemon_.welcome();
  daemon_.send(lease_of(7));
  EXPECT_EQ(daemon_.expect<RetrainingEpochReport>().epoch.epoch, 1);
  protocol::Message message = daemon_.receive_any();
  ASSERT_TRUE(std::holds_alternative<protocol::Heartbeat>(message)) << "the daemon hears of it before it has the retraining back";
  EXPECT_EQ(std::get<protocol::Heartbeat>(message).condition.longest_epoch_s, 0);
  EXPECT_EQ(daemon_.expect<RetrainingEpochReport>().epoch.epoch, 2);
  const auto back = daemon_.expect<GiveBack>();
  EXPECT_THAT(back.retrainings, ElementsAre(held(7)));
  EXPECT_THAT(back.reason, AllOf(HasSubstr("the worker's wall time ends in "), HasSubstr("too short for another epoch (of about 200.0 s)")));
  daemon_.send(lease_of(8));
  EXPECT_THAT(daemon_.expect<GiveBack>().retrainings, ElementsAre(held(8))) << "it was on its way already";
}

TEST_F(RetrainingClientTest, WithTimeEnoughItGoesOn) {
  FakeRetrainer retrainer;  // its epochs take 2 s
  start(retrainer, 0ms, {400s, 60s, 20s});
  daemon_.welcome();
  begin(7);
  retrainer.finish();
  EXPECT_EQ(daemon_.expect<RetrainingResult>().outcome.outcome, Outcome::completed);
}

TEST_F(RetrainingClientTest, AtTheEndOfItsWallTimeItGivesBackEvenAmidAnEpoch) {
  const auto stubborn = [](RetrainingSession& session) {
    session.on_epoch(epoch_of(1));
    while (!session.cancel().stop_requested()) std::this_thread::sleep_for(1ms);
    session.on_end(Outcome::cancelled, "stopped amid an epoch");
  };
  start(stubborn, 0ms, {8'000ms, 100ms, 20s});
  daemon_.welcome();
  daemon_.send(lease_of(7));
  daemon_.expect<RetrainingEpochReport>();
  EXPECT_THAT(daemon_.expect<Leaving>().reason, HasSubstr("its wall time ends in"));
  EXPECT_THAT(daemon_.expect<GiveBack>().retrainings, ElementsAre(held(7)));
  acknowledge("epoch", 7, 1);
  daemon_.expect_close();
  thread_.join();
}

TEST_F(RetrainingClientTest, DrainedItHandsBackAndEnds) {
  FakeRetrainer retrainer;
  start(retrainer);
  daemon_.welcome();
  begin(7);
  daemon_.send(Drain{"the daemon shuts down"});
  daemon_.expect<Leaving>();
  daemon_.expect<RetrainingEpochReport>();
  daemon_.expect<GiveBack>();
  acknowledge("epoch", 7, 1);
  acknowledge("epoch", 7, 2);
  daemon_.expect_close();
  thread_.join();
}

TEST_F(RetrainingClientTest, WhatTheTrainerThrowsOrCannotSayIsAFailure) {
  int call = 0;
  start([&call](RetrainingSession& session) {
    ++call;
    if (call == 1) throw std::runtime_error("the features are gone");
    if (call == 2) throw std::bad_alloc();
    if (call == 3) return;
    RetrainingOutcome outcome = completed();
    outcome.score->train_loss = std::nan("");
    session.on_end(outcome);
  });
  daemon_.welcome();
  const auto outcome_of = [&](std::int64_t id) {
    daemon_.send(lease_of(id));
    const RetrainingOutcome outcome = daemon_.expect<RetrainingResult>().outcome;
    acknowledge("result", id);
    return outcome;
  };
  EXPECT_EQ(outcome_of(1).error, "the features are gone");
  EXPECT_EQ(outcome_of(2).outcome, Outcome::oom);
  EXPECT_THAT(outcome_of(3).error, HasSubstr("without a word"));
  EXPECT_THAT(outcome_of(4).error, HasSubstr("not legal"));
}

TEST_F(RetrainingClientTest, AWorkerThatCannotRetrainSaysSo) {
  start(refuse_to_retrain);
  daemon_.welcome();
  daemon_.send(lease_of(1));
  const RetrainingOutcome outcome = daemon_.expect<RetrainingResult>().outcome;
  EXPECT_EQ(outcome.outcome, Outcome::failed);
  EXPECT_THAT(outcome.error, HasSubstr("cannot retrain"));
}

}  // namespace
}  // namespace fusion
