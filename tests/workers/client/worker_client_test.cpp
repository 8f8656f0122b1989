#include "workers/client/worker_client.h"
#include "workers/client/worker_condition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <exception>
#include <limits>
#include <mutex>
#include <new>
#include <set>
#include <thread>

#include "base/error.h"
#include "tests/workers/client/scripted_daemon.h"

namespace fusion {
namespace {

using namespace std::chrono_literals;
using protocol::Ack;
using protocol::Cancel;
using protocol::Drain;
using protocol::Epoch;
using protocol::GiveBack;
using protocol::Heartbeat;
using protocol::Held;
using protocol::Hello;
using protocol::Leaving;
using protocol::Result;
using testing::ScriptedDaemon;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Held held(std::int64_t trial, int attempt = 1) { return {TrialId{trial}, attempt}; }

protocol::Pack pack_of(std::initializer_list<std::int64_t> trials) {
  protocol::Pack pack;
  pack.study = StudyId{4};
  pack.dataset_path = "/data/features.json";
  pack.dataset_digest = std::string(64, 'a');
  for (const std::int64_t trial : trials) {
    TrialJob job;
    job.trial = TrialId{trial};
    job.attempt = 1;
    job.architecture.steps.push_back({{0, 0}});
    job.seed = 11;
    pack.trials.push_back(job);
  }
  return pack;
}

Ack ack_of(const Result& result) { return {"result", result.outcome.trial, result.outcome.attempt, 0, true}; }

TrialOutcome completed(double dev_score) {
  TrialOutcome outcome;
  outcome.engine = "fake";
  outcome.score.emplace();
  outcome.score->dev_score = dev_score;
  return outcome;
}

TrialOutcome stopped() {
  TrialOutcome outcome;
  outcome.outcome = Outcome::cancelled;
  return outcome;
}

/// Trains one trial.
using TrainOne =
    std::function<TrialOutcome(const TrialJob& job, std::stop_token cancel, const std::function<void(const EpochReport&)>& on_epoch)>;

/// One trial after the other.
TrainFunction one_by_one(TrainOne train) {
  return [train](PackSession& session) {
    for (std::vector<SessionTrial> trials = session.trials(); !trials.empty(); trials = session.more(1)) {
      const SessionTrial& trial = trials.front();
      TrialOutcome outcome = train(trial.job, trial.cancel, [&](const EpochReport& report) { session.on_epoch(trial.job, report); });
      outcome.trial = trial.job.trial;
      outcome.attempt = trial.job.attempt;
      session.on_end(std::move(outcome));
    }
  };
}

/// Trains until it is told to finish, or to stop: what a real trial does between two batches.
class FakeTrainer {
 public:
  TrialOutcome operator()(const TrialJob& job, std::stop_token stop, const std::function<void(const EpochReport&)>& on_epoch) {
    ++begun_;
    EpochReport report;
    report.epoch = 1;
    report.dev_score = 0.25;
    on_epoch(report);
    while (!stop.stop_requested()) {
      if (may_finish_.load() >= job.trial.value) return completed(0.5);
      std::this_thread::sleep_for(1ms);
    }
    return stopped();
  }
  /// Trials up to this number may finish.
  void finish_up_to(std::int64_t trial) { may_finish_ = trial; }
  int begun() const { return begun_; }

 private:
  std::atomic<std::int64_t> may_finish_{0};
  std::atomic<int> begun_{0};
};

/// A worker in this process. The destructor asks it to leave and waits for it.
class RunningWorker {
 public:
  RunningWorker(const ScriptedDaemon& daemon, TrainFunction train, WorkerClientOptions options = {})
      : client_(filled(daemon, std::move(options)), std::move(train)), thread_([this] { work(); }) {}
  RunningWorker(const ScriptedDaemon& daemon, FakeTrainer& trainer, WorkerClientOptions options = {})
      : RunningWorker(
            daemon,
            one_by_one([&trainer](const TrialJob& job, std::stop_token stop, const auto& on_epoch) {
              return trainer(job, stop, on_epoch);
            }),
            std::move(options)) {}
  ~RunningWorker() {
    if (!thread_.joinable()) return;
    client_.leave("the test ends");
    thread_.join();
  }
  void leave() { client_.leave("the test says so"); }
  void report_device(const std::string& problem) {
    protocol::Device device;
    device.name = "cuda:0";
    device.problem = problem;
    client_.report_devices({device});
  }
  void resize(int pack, int slots) { client_.report_devices({}, WorkerClient::Size{pack, slots}); }
  /// Waits for its end; "" or the sentence it ended with.
  std::string end() {
    thread_.join();
    try {
      if (error_) std::rethrow_exception(error_);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  std::exception_ptr error() const { return error_; }

 private:
  static WorkerClientOptions filled(const ScriptedDaemon& daemon, WorkerClientOptions options) {
    options.url = parse_daemon_url(daemon.url());
    if (options.name.empty()) options.name = "w1";
    options.torch_version = "1.13.1";
    options.backoff_min = 10ms;
    options.backoff_max = 100ms;
    options.leave_wait = 300ms;
    options.handle_signals = false;
    return options;
  }
  void work() {
    try {
      client_.run();
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  std::exception_ptr error_;
  WorkerClient client_;
  std::thread thread_;
};

TEST(WorkerClientTest, TrainsAPackAndLeavesOnRequest) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  trainer.finish_up_to(100);
  WorkerClientOptions options;
  options.slots = 2;
  options.token = "s3cret";
  RunningWorker worker(daemon, trainer, options);

  const Hello hello = daemon.welcome();
  EXPECT_EQ(hello.protocol, protocol::kVersion);
  EXPECT_EQ(hello.name, "w1");
  EXPECT_EQ(hello.slots, 2);
  EXPECT_EQ(hello.device, "cpu");
  EXPECT_EQ(hello.torch_version, "1.13.1");
  EXPECT_THAT(hello.held, IsEmpty());
  EXPECT_EQ(daemon.request().target(), "/api/v1/worker");
  EXPECT_EQ(daemon.request()[http::field::authorization], "Bearer s3cret");

  daemon.send(pack_of({1, 2}));
  for (const std::int64_t trial : {1, 2}) {
    EXPECT_EQ(daemon.expect<Epoch>().report.dev_score, 0.25);
    const auto result = daemon.expect<Result>();
    EXPECT_EQ(result.outcome.trial, TrialId{trial});
    EXPECT_EQ(result.outcome.attempt, 1);
    EXPECT_EQ(result.outcome.outcome, Outcome::completed);
    EXPECT_EQ(result.outcome.score->dev_score, 0.5);
    EXPECT_EQ(result.outcome.device, "cpu");
    EXPECT_EQ(result.outcome.torch_version, "1.13.1");
    daemon.send(ack_of(result));
  }
  worker.leave();
  EXPECT_EQ(daemon.expect<Leaving>().reason, "the test says so");
  daemon.expect_close();
  EXPECT_EQ(worker.end(), "");
}

TEST(WorkerClientTest, SaysWhatStillFitsAndLeavesWhenItsWallTimeEnds) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  WorkerClientOptions options;
  options.slots = 4;
  options.job = "4711_3";
  options.node = "gpu7";
  options.wall = {3'000ms, 100ms, 20'000ms};
  RunningWorker worker(daemon, trainer, options);
  const Hello hello = daemon.welcome();
  EXPECT_EQ(hello.job, "4711_3");
  EXPECT_EQ(hello.node, "gpu7");
  EXPECT_EQ(hello.condition.fits, 1) << "one pack, before anything is known";
  EXPECT_GT(hello.condition.time_left_s.value(), 0);
  daemon.send(pack_of({1, 2}));  // the daemon did not hold to it
  EXPECT_THAT(daemon.expect<GiveBack>().held, ElementsAre(held(1), held(2)));
  daemon.send(pack_of({3}));
  daemon.expect<Epoch>();
  EXPECT_THAT(daemon.expect<Leaving>().reason, HasSubstr("its wall time ends in"));
  EXPECT_THAT(daemon.expect<GiveBack>().held, ElementsAre(held(3)));
  daemon.expect_close();
  EXPECT_EQ(worker.end(), "");
}

TEST(WorkerClientTest, DataThatCannotBeReadGoesBackAndFailsNothing) {
  ScriptedDaemon daemon;
  WorkerClientOptions options;
  options.slots = 2;
  RunningWorker worker(daemon, [](PackSession&) { throw UnreadableData("train.safetensors is not here"); }, options);
  daemon.welcome();
  daemon.send(pack_of({1, 2}));
  protocol::Message message = daemon.receive_any();
  const auto* beat = std::get_if<Heartbeat>(&message);
  ASSERT_NE(beat, nullptr) << "the daemon hears of it before it has the trials back";
  ASSERT_EQ(beat->condition.unreadable.size(), 1u);
  EXPECT_EQ(beat->condition.unreadable[0].dataset_digest, std::string(64, 'a'));
  EXPECT_THAT(daemon.expect<GiveBack>().reason, HasSubstr("is not here"));
  EXPECT_THAT(daemon.expect<GiveBack>().reason, HasSubstr("is not here"));
}

TEST(WorkerClientTest, AWorkerWhoseDeviceIsLostGivesBackAndLeaves) {
  ScriptedDaemon daemon;
  RunningWorker worker(daemon, [](PackSession&) { throw DeviceLost("cuda:0 is gone"); });
  daemon.welcome();
  daemon.send(pack_of({1}));
  EXPECT_EQ(daemon.expect<Leaving>().reason, "cuda:0 is gone");
  EXPECT_THAT(daemon.expect<GiveBack>().held, ElementsAre(held(1)));
  daemon.expect_close();
  EXPECT_EQ(worker.end(), "");
}

TEST(WorkerClientTest, AFullDeviceTakesNothingUntilItIsUsableAgain) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.welcome(0.02);
  worker.report_device("the GPU is full");
  std::optional<Heartbeat> beat;
  do beat = std::get<Heartbeat>(daemon.receive_any());
  while (beat->condition.problem.empty());
  EXPECT_EQ(beat->condition.fits, 0);
  daemon.send(pack_of({1}));
  EXPECT_THAT(daemon.expect<GiveBack>().reason, "the GPU is full");
  worker.report_device("");
  do beat = std::get<Heartbeat>(daemon.receive_any());
  while (!beat->condition.problem.empty());
  EXPECT_FALSE(beat->condition.fits);
}

TEST(WorkerClientTest, SendsNoTokenWhereThereIsNone) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.welcome();
  EXPECT_EQ(daemon.request().count(http::field::authorization), 0u);
}

TEST(WorkerClientTest, HeartbeatsNameEverythingHeldWhileItTrains) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.welcome(0.02);
  daemon.send(pack_of({1, 2}));
  daemon.expect<Epoch>();
  trainer.finish_up_to(1);
  daemon.expect<Result>();  // of trial 1, and not acknowledged
  daemon.expect<Epoch>();   // of trial 2
  protocol::Message message = daemon.receive_any();
  ASSERT_TRUE(std::holds_alternative<Heartbeat>(message));
  EXPECT_THAT(std::get<Heartbeat>(message).held, ElementsAre(held(1), held(2)));
  daemon.send(Ack{"result", TrialId{1}, 1, 0, true});
  do {
    message = daemon.receive_any();
    ASSERT_TRUE(std::holds_alternative<Heartbeat>(message));
  } while (std::get<Heartbeat>(message).held.size() == 2);
  EXPECT_THAT(std::get<Heartbeat>(message).held, ElementsAre(held(2)));
}

TEST(WorkerClientTest, ADaemonThatDiesInMidTrialGetsTheResultWhenItIsBack) {
  auto daemon = std::make_unique<ScriptedDaemon>();
  const unsigned short port = daemon->port();
  FakeTrainer trainer;
  RunningWorker worker(*daemon, trainer);
  daemon->welcome();
  daemon->send(pack_of({1, 2}));
  daemon->expect<Epoch>();
  daemon->die();
  trainer.finish_up_to(1);
  while (trainer.begun() < 2) std::this_thread::sleep_for(1ms);  // it goes on without a daemon

  daemon = std::make_unique<ScriptedDaemon>(port);
  const Hello hello = daemon->welcome();
  EXPECT_EQ(hello.name, "w1");
  EXPECT_THAT(hello.held, ElementsAre(held(1), held(2)));
  EXPECT_EQ(daemon->expect<Epoch>().trial, TrialId{1}) << "never acknowledged, so it comes again";
  EXPECT_EQ(daemon->expect<Result>().outcome.trial, TrialId{1});
  EXPECT_EQ(daemon->expect<Epoch>().trial, TrialId{2});
}

TEST(WorkerClientTest, AResultIsSentUntilItIsAcknowledged) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  trainer.finish_up_to(1);
  RunningWorker worker(daemon, trainer);
  daemon.welcome();
  daemon.send(pack_of({1}));
  daemon.expect<Epoch>();
  const auto first = daemon.expect<Result>();
  for (int i = 0; i < 2; ++i) {
    daemon.hang_up();
    EXPECT_THAT(daemon.welcome().held, ElementsAre(held(1)));
    daemon.expect<Epoch>();
    EXPECT_EQ(daemon.expect<Result>(), first);
  }
  daemon.send(ack_of(first));
  daemon.send(Ack{"result", TrialId{99}, 1, 0, true});  // of something unknown: no harm
  daemon.send(pack_of({3}));                            // it has read the acknowledgement when it answers this
  EXPECT_EQ(daemon.expect<Epoch>().trial, TrialId{3});
  daemon.hang_up();
  EXPECT_THAT(daemon.welcome().held, ElementsAre(held(3)));
  EXPECT_EQ(trainer.begun(), 2) << "nothing was trained twice";
}

TEST(WorkerClientTest, APackThatIsHeldAlreadyIsNotTrainedAgain) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.welcome();
  daemon.send(pack_of({1}));
  daemon.expect<Epoch>();
  daemon.send(pack_of({1}));
  daemon.send(pack_of({1, 2}));
  trainer.finish_up_to(2);
  EXPECT_EQ(daemon.expect<Result>().outcome.trial, TrialId{1});
  EXPECT_EQ(daemon.expect<Epoch>().trial, TrialId{2});
  EXPECT_EQ(daemon.expect<Result>().outcome.trial, TrialId{2});
  EXPECT_EQ(trainer.begun(), 2);
}

TEST(WorkerClientTest, CancelStopsWhatTrainsAndWhatWaits) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.welcome();
  daemon.send(pack_of({1, 2, 3}));
  daemon.expect<Epoch>();
  daemon.send(Cancel{{held(2), held(1), held(77)}, "study 4 was cancelled"});
  std::set<std::int64_t> cancelled;
  while (cancelled.size() < 2) {
    const auto result = daemon.expect<Result>();
    EXPECT_EQ(result.outcome.outcome, Outcome::cancelled);
    EXPECT_EQ(result.outcome.error, "study 4 was cancelled");
    cancelled.insert(result.outcome.trial.value);
  }
  EXPECT_THAT(cancelled, ElementsAre(1, 2));
  EXPECT_EQ(daemon.expect<Epoch>().trial, TrialId{3}) << "the others go on";
  EXPECT_EQ(trainer.begun(), 2);
}

TEST(WorkerClientTest, CancelAfterAReconnectStopsToo) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.welcome();
  daemon.send(pack_of({1}));
  daemon.expect<Epoch>();
  daemon.hang_up();
  daemon.welcome();
  daemon.expect<Epoch>();
  daemon.send(Cancel{{held(1)}, "the trial went to another worker"});
  EXPECT_EQ(daemon.expect<Result>().outcome.outcome, Outcome::cancelled);
}

TEST(WorkerClientTest, ARefusedWorkerEndsWithTheDaemonsSentence) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.accept();
  daemon.expect<Hello>();
  daemon.send(protocol::Refused{"this daemon speaks protocol version 2"});
  EXPECT_THAT(worker.end(), HasSubstr("refused this worker: this daemon speaks protocol version 2"));
}

TEST(WorkerClientTest, ARefusalInMidTrialStopsTheTraining) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.welcome();
  daemon.send(pack_of({1, 2}));
  daemon.expect<Epoch>();
  daemon.send(protocol::Refused{"epoch frame: /dev_score: wrong"});
  EXPECT_THAT(worker.end(), HasSubstr("/dev_score"));
  EXPECT_EQ(trainer.begun(), 1);
}

TEST(WorkerClientTest, AWrongTokenEndsTheWorkerOtherHttpErrorsDoNot) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.decline(http::status::service_unavailable);
  daemon.decline(http::status::not_found);
  daemon.decline(http::status::unauthorized);
  EXPECT_THAT(worker.end(), HasSubstr("refused the token (401"));
}

TEST(WorkerClientTest, GarbageMakesItConnectAgain) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.welcome();
  daemon.send(pack_of({1}));
  daemon.expect<Epoch>();
  daemon.send_text("{\"type\": \"pack\"");
  EXPECT_THAT(daemon.welcome().held, ElementsAre(held(1)));
  daemon.expect<Epoch>();
  daemon.send_text("{\"type\": \"no such message\"}");
  daemon.welcome();
  daemon.expect<Epoch>();
  daemon.send_binary("\x01\x02");
  daemon.welcome();
  daemon.expect<Epoch>();
  daemon.send(Heartbeat{});  // legal, but not from a daemon
  daemon.welcome();
  daemon.expect<Epoch>();
  daemon.hang_up();
  daemon.accept();
  daemon.expect<Hello>();
  daemon.send(pack_of({9}));  // before welcome
  EXPECT_THAT(daemon.welcome().held, ElementsAre(held(1)));
  daemon.expect<Epoch>();
  trainer.finish_up_to(1);
  EXPECT_EQ(daemon.expect<Result>().outcome.outcome, Outcome::completed);
}

TEST(WorkerClientTest, DrainFinishesWhatIsHeldAndEnds) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.welcome();
  daemon.send(pack_of({1, 2}));
  daemon.expect<Epoch>();
  daemon.send(Drain{"the daemon shuts down"});
  daemon.expect<Leaving>();
  trainer.finish_up_to(2);
  const auto first = daemon.expect<Result>();
  daemon.expect<Epoch>();
  const auto second = daemon.expect<Result>();
  daemon.send(ack_of(first));
  daemon.send(ack_of(second));
  daemon.expect_close();
  EXPECT_EQ(worker.end(), "");
  EXPECT_EQ(second.outcome.outcome, Outcome::completed);
}

TEST(WorkerClientTest, DrainEndsAnIdleWorkerAtOnce) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.welcome();
  daemon.send(Drain{"the daemon shuts down"});
  daemon.expect<Leaving>();
  daemon.expect_close();
  EXPECT_EQ(worker.end(), "");
}

TEST(WorkerClientTest, LeavingGivesBackWhatWaitsAndWhatTrains) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  RunningWorker worker(daemon, trainer);
  daemon.welcome();
  daemon.send(pack_of({1, 2, 3}));
  daemon.expect<Epoch>();
  worker.leave();
  daemon.expect<Leaving>();
  EXPECT_THAT(daemon.expect<GiveBack>().held, ElementsAre(held(2), held(3)));
  EXPECT_THAT(daemon.expect<GiveBack>().held, ElementsAre(held(1)));
  daemon.expect_close();
  EXPECT_EQ(worker.end(), "");
}

TEST(WorkerClientTest, WithinItsGraceTheTrialInTrainingMayFinish) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  WorkerClientOptions options;
  options.grace = 60s;
  RunningWorker worker(daemon, trainer, options);
  daemon.welcome();
  daemon.send(pack_of({1, 2}));
  daemon.expect<Epoch>();
  worker.leave();
  daemon.expect<Leaving>();
  EXPECT_THAT(daemon.expect<GiveBack>().held, ElementsAre(held(2)));
  daemon.send(pack_of({5}));  // crossed the leaving
  EXPECT_THAT(daemon.expect<GiveBack>().held, ElementsAre(held(5)));
  trainer.finish_up_to(1);
  const auto result = daemon.expect<Result>();
  EXPECT_EQ(result.outcome.outcome, Outcome::completed);
  daemon.send(ack_of(result));
  daemon.expect_close();
  EXPECT_EQ(worker.end(), "");
}

TEST(WorkerClientTest, LeavingWaitsForAcknowledgementsOverAReconnect) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  trainer.finish_up_to(1);
  RunningWorker worker(daemon, trainer);
  daemon.welcome();
  daemon.send(pack_of({1}));
  daemon.expect<Epoch>();
  const auto result = daemon.expect<Result>();
  worker.leave();
  daemon.expect<Leaving>();
  daemon.hang_up();
  EXPECT_THAT(daemon.welcome().held, ElementsAre(held(1)));
  daemon.expect<Epoch>();
  EXPECT_EQ(daemon.expect<Result>(), result);
  daemon.expect<Leaving>();
  daemon.send(ack_of(result));
  daemon.expect_close();
  EXPECT_EQ(worker.end(), "");
}

TEST(WorkerClientTest, LeavingWaitsForAcknowledgementsNotForEver) {
  ScriptedDaemon daemon;
  FakeTrainer trainer;
  trainer.finish_up_to(1);
  RunningWorker worker(daemon, trainer);
  daemon.welcome();
  daemon.send(pack_of({1}));
  daemon.expect<Epoch>();
  daemon.expect<Result>();
  worker.leave();
  daemon.expect<Leaving>();
  daemon.expect_close();
  EXPECT_EQ(worker.end(), "");
}

TEST(WorkerClientTest, LeavingWithoutADaemonEndsAtOnce) {
  auto daemon = std::make_unique<ScriptedDaemon>();
  FakeTrainer trainer;
  RunningWorker worker(*daemon, trainer);
  daemon->welcome();
  daemon->send(pack_of({1, 2}));
  daemon->expect<Epoch>();
  daemon->die();
  worker.leave();
  EXPECT_EQ(worker.end(), "") << "what it held expires with its lease";
}

TEST(WorkerClientTest, WhatTheTrainerThrowsIsAFailedTrial) {
  ScriptedDaemon daemon;
  const auto train = [](const TrialJob& job, std::stop_token, const auto&) -> TrialOutcome {
    if (job.trial.value == 1) throw DataError("/data/features.json: its digest is another one");
    if (job.trial.value == 2) throw std::bad_alloc();
    if (job.trial.value == 3) throw 42;
    return completed(0.75);
  };
  RunningWorker worker(daemon, one_by_one(train));
  daemon.welcome();
  daemon.send(pack_of({1, 2, 3, 4}));
  const TrialOutcome first = daemon.expect<Result>().outcome;
  EXPECT_EQ(first.outcome, Outcome::failed);
  EXPECT_EQ(first.error, "/data/features.json: its digest is another one");
  EXPECT_EQ(first.trial, TrialId{1});
  EXPECT_EQ(daemon.expect<Result>().outcome.outcome, Outcome::oom);
  EXPECT_EQ(daemon.expect<Result>().outcome.outcome, Outcome::failed);
  EXPECT_EQ(daemon.expect<Result>().outcome.score->dev_score, 0.75) << "the worker lives on";
}

TEST(WorkerClientTest, WhatTheDaemonWouldRefuseIsNotSent) {
  ScriptedDaemon daemon;
  const auto train = [](const TrialJob& job, std::stop_token, const auto& on_epoch) {
    EpochReport report;
    report.epoch = 1;
    report.train_loss = std::numeric_limits<double>::quiet_NaN();
    on_epoch(report);
    if (job.trial.value == 1) return completed(std::numeric_limits<double>::quiet_NaN());
    if (job.trial.value == 2) return completed(1.5);
    TrialOutcome outcome;  // completed, and no score
    return outcome;
  };
  RunningWorker worker(daemon, one_by_one(train));
  daemon.welcome();
  daemon.send(pack_of({1, 2, 3}));
  for (int i = 0; i < 3; ++i) {
    const TrialOutcome outcome = daemon.expect<Result>().outcome;
    EXPECT_EQ(outcome.outcome, Outcome::failed);
    EXPECT_THAT(outcome.error, HasSubstr("not legal"));
  }
}

/// Trains a pack in steps of 1 ms, all trials at once; those that may finish do, and new ones take their places.
class PackTrainer {
 public:
  void operator()(PackSession& session) {
    ++packs_;
    std::vector<SessionTrial> trials = session.trials();
    for (const SessionTrial& trial : trials) begin(session, trial);
    while (!trials.empty()) {
      std::size_t room = 0;
      std::erase_if(trials, [&](const SessionTrial& trial) {
        const bool pruned = trial.prune.stop_requested();
        const bool ends = trial.cancel.stop_requested() || pruned || may_finish(trial.job.trial.value);
        if (ends) {
          TrialOutcome outcome = trial.cancel.stop_requested() ? stopped() : completed(0.5);
          if (pruned) outcome.outcome = Outcome::pruned;
          outcome.trial = trial.job.trial;
          outcome.attempt = trial.job.attempt;
          session.on_end(outcome);
          session.on_end(outcome);  // once too often: dropped
          ++room;
        }
        return ends;
      });
      if (room > 0) {
        for (const SessionTrial& trial : session.more(100)) {
          begin(session, trial);
          trials.push_back(trial);
        }
        most_ = std::max<std::size_t>(most_, trials.size());
      }
      std::this_thread::sleep_for(1ms);
    }
  }
  void finish(std::initializer_list<std::int64_t> trials) {
    const std::lock_guard lock(mutex_);
    finished_.insert(trials);
  }
  int packs() const { return packs_; }
  std::size_t most() const { return most_; }

 private:
  void begin(PackSession& session, const SessionTrial& trial) {
    EpochReport report;
    report.epoch = 1;
    session.on_epoch(trial.job, report);
  }
  bool may_finish(std::int64_t trial) {
    const std::lock_guard lock(mutex_);
    return finished_.contains(trial);
  }
  std::mutex mutex_;
  std::set<std::int64_t> finished_;
  std::atomic<int> packs_{0};
  std::atomic<std::size_t> most_{0};
};

/// A worker that trains up to four trials together.
class WorkerClientPackTest : public ::testing::Test {
 protected:
  WorkerClientPackTest() {
    WorkerClientOptions options;
    options.pack = 4;
    options.slots = 8;
    worker_.emplace(daemon_, [this](PackSession& session) { trainer_(session); }, options);
    const Hello hello = daemon_.welcome();
    EXPECT_EQ(hello.pack, 4);
    EXPECT_EQ(hello.slots, 8);
  }
  std::set<std::int64_t> begun(int count) {
    std::set<std::int64_t> trials;
    for (int i = 0; i < count; ++i) trials.insert(daemon_.expect<Epoch>().trial.value);
    return trials;
  }
  std::int64_t result() {
    const auto result = daemon_.expect<Result>();
    EXPECT_EQ(result.outcome.outcome, Outcome::completed);
    daemon_.send(ack_of(result));
    return result.outcome.trial.value;
  }
  ScriptedDaemon daemon_;
  PackTrainer trainer_;
  std::optional<RunningWorker> worker_;
};

TEST_F(WorkerClientPackTest, TrainsTogetherReportsEachAtItsEndAndRefillsFromWhatWaits) {
  daemon_.send(pack_of({1, 2, 3, 4, 5, 6}));
  EXPECT_THAT(begun(4), ElementsAre(1, 2, 3, 4));
  trainer_.finish({3});
  EXPECT_EQ(result(), 3) << "while the others train on";
  EXPECT_THAT(begun(1), ElementsAre(5)) << "without a word to the daemon";
  trainer_.finish({1, 2});
  EXPECT_EQ(result() + result(), 3);
  EXPECT_THAT(begun(1), ElementsAre(6));
  daemon_.send(pack_of({7, 8}));  // comes while the session runs: it joins
  daemon_.send(Cancel{{held(8)}, "not wanted"});
  EXPECT_EQ(daemon_.expect<Result>().outcome.trial, TrialId{8}) << "so both have come";
  trainer_.finish({4});
  EXPECT_EQ(result(), 4);
  EXPECT_THAT(begun(1), ElementsAre(7));
  trainer_.finish({5, 6, 7});
  std::set<std::int64_t> rest{result(), result(), result()};
  EXPECT_THAT(rest, ElementsAre(5, 6, 7));
  EXPECT_EQ(trainer_.packs(), 1);
  EXPECT_LE(trainer_.most(), 4u) << "the trainer asked for a hundred";
}

TEST_F(WorkerClientPackTest, ThePackFollowsItsSizeBothWaysAndTheDaemonHearsOfIt) {
  worker_->resize(6, 12);
  daemon_.send(pack_of({1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_THAT(begun(6), ElementsAre(1, 2, 3, 4, 5, 6)) << "it said four in hello";
  worker_->resize(2, 4);
  std::optional<Heartbeat> beat;
  do beat = std::get<Heartbeat>(daemon_.receive_any());
  while (beat->condition.pack != 2);
  EXPECT_EQ(beat->condition.slots, 4);
  trainer_.finish({1, 2, 3, 4});
  for (int i = 0; i < 4; ++i) result();
  trainer_.finish({5});
  EXPECT_EQ(result(), 5) << "two of two trained, so none was begun before";
  EXPECT_THAT(begun(1), ElementsAre(7));
}

TEST_F(WorkerClientPackTest, AnotherStudyWaitsForTheEndOfThePack) {
  protocol::Pack other = pack_of({9});
  other.study = StudyId{5};
  daemon_.send(pack_of({1, 2}));
  begun(2);
  daemon_.send(other);
  daemon_.send(pack_of({3}));
  trainer_.finish({1, 3, 9});
  EXPECT_EQ(result(), 1);
  trainer_.finish({2});
  EXPECT_EQ(result(), 2);
  EXPECT_THAT(begun(1), ElementsAre(9)) << "it came before trial 3";
  EXPECT_EQ(result(), 9);
  EXPECT_THAT(begun(1), ElementsAre(3));
  EXPECT_EQ(result(), 3);
  EXPECT_EQ(trainer_.packs(), 3);
}

TEST_F(WorkerClientPackTest, CancelStopsOneOfThePackAndOneThatWaits) {
  daemon_.send(pack_of({1, 2, 3, 4, 5, 6}));
  begun(4);
  daemon_.send(Cancel{{held(5), held(2)}, "not wanted"});
  std::set<std::int64_t> cancelled;
  while (cancelled.size() < 2) {
    const auto end = daemon_.expect<Result>();
    EXPECT_EQ(end.outcome.outcome, Outcome::cancelled);
    EXPECT_EQ(end.outcome.error, "not wanted");
    cancelled.insert(end.outcome.trial.value);
  }
  EXPECT_THAT(cancelled, ElementsAre(2, 5));
  EXPECT_THAT(begun(1), ElementsAre(6));
  trainer_.finish({1});
  EXPECT_EQ(result(), 1);
}

TEST_F(WorkerClientPackTest, APrunedTrialKeepsItsScoreAndItsRoomIsFilled) {
  daemon_.send(pack_of({1, 2, 3, 4, 5, 6}));
  begun(4);
  daemon_.send(protocol::Prune{{held(2), held(6), held(99)}, "behind"});
  const auto end = daemon_.expect<Result>();
  EXPECT_EQ(end.outcome.trial, TrialId{2});
  EXPECT_EQ(end.outcome.outcome, Outcome::pruned);
  EXPECT_EQ(end.outcome.score->dev_score, 0.5);
  EXPECT_EQ(end.outcome.error, "behind");
  EXPECT_THAT(begun(1), ElementsAre(5));
  trainer_.finish({1, 6});
  EXPECT_EQ(result(), 1);
  EXPECT_THAT(begun(1), ElementsAre(6));
  EXPECT_EQ(result(), 6) << "it had not begun";
}

TEST_F(WorkerClientPackTest, LeavingGivesBackEveryTrialThatDidNotEnd) {
  daemon_.send(pack_of({1, 2, 3, 4, 5, 6}));
  begun(4);
  daemon_.send(Cancel{{held(3)}, "not wanted"});
  EXPECT_EQ(daemon_.expect<Result>().outcome.trial, TrialId{3});
  begun(1);
  worker_->leave();
  daemon_.expect<Leaving>();
  EXPECT_THAT(daemon_.expect<GiveBack>().held, ElementsAre(held(6)));
  std::set<std::int64_t> back;
  for (int i = 0; i < 4; ++i) back.insert(daemon_.expect<GiveBack>().held.at(0).trial.value);
  EXPECT_THAT(back, ElementsAre(1, 2, 4, 5));
  daemon_.send(Ack{"result", TrialId{3}, 1, 0, true});
  daemon_.expect_close();
  EXPECT_EQ(worker_->end(), "");
}

TEST_F(WorkerClientPackTest, DrainTrainsWhatWaitsToo) {
  daemon_.send(pack_of({1, 2, 3, 4, 5}));
  begun(4);
  daemon_.send(Drain{"enough"});
  daemon_.expect<Leaving>();
  trainer_.finish({1});
  EXPECT_EQ(result(), 1);
  begun(1);
  trainer_.finish({2, 3, 4, 5});
  for (int i = 0; i < 4; ++i) result();
  daemon_.expect_close();
  EXPECT_EQ(worker_->end(), "");
}

TEST_F(WorkerClientPackTest, DrainSaidAgainGivesBackWhatDidNotEnd) {
  daemon_.send(pack_of({1, 2, 3, 4, 5}));
  begun(4);
  daemon_.send(Drain{"enough"});
  daemon_.expect<Leaving>();
  daemon_.send(Drain{"enough"});
  EXPECT_THAT(daemon_.expect<GiveBack>().held, ElementsAre(held(5)));
  std::set<std::int64_t> back;
  for (int i = 0; i < 4; ++i) back.insert(daemon_.expect<GiveBack>().held.at(0).trial.value);
  EXPECT_THAT(back, ElementsAre(1, 2, 3, 4));
  daemon_.expect_close();
  EXPECT_EQ(worker_->end(), "");
}

TEST_F(WorkerClientPackTest, DrainSaidOverAnotherConnectionIsTheFirstOne) {
  daemon_.send(pack_of({1, 2}));
  begun(2);
  daemon_.send(Drain{"enough"});
  daemon_.expect<Leaving>();
  daemon_.hang_up();
  EXPECT_THAT(daemon_.welcome().held.size(), 2u);
  daemon_.send(Drain{"enough"});
  trainer_.finish({1, 2});
  std::set<std::int64_t> results;
  while (results.size() < 2) {
    const protocol::Message message = daemon_.receive();
    ASSERT_FALSE(std::holds_alternative<GiveBack>(message));
    const auto* end = std::get_if<Result>(&message);
    if (end == nullptr) continue;
    results.insert(end->outcome.trial.value);
    daemon_.send(ack_of(*end));
  }
  daemon_.expect_close();
  EXPECT_EQ(worker_->end(), "");
}

TEST_F(WorkerClientPackTest, APackGoesOnWithoutAConnection) {
  daemon_.send(pack_of({1, 2, 3, 4, 5}));
  begun(4);
  daemon_.hang_up();
  trainer_.finish({1, 2});
  EXPECT_THAT(daemon_.welcome().held.size(), 5u);
  std::set<std::int64_t> results;
  while (results.size() < 2) {
    const protocol::Message message = daemon_.receive();
    if (const auto* end = std::get_if<Result>(&message)) results.insert(end->outcome.trial.value);
  }
  EXPECT_THAT(results, ElementsAre(1, 2));
}

TEST(WorkerClientTest, WhatTheTrainerThrowsIsTheEndOfEveryTrialOfThePack) {
  ScriptedDaemon daemon;
  WorkerClientOptions options;
  options.pack = 2;
  const auto train = [](PackSession& session) {
    if (session.trials().front().job.trial == TrialId{4}) return;  // ends nothing
    TrialOutcome outcome = completed(0.5);
    outcome.trial = TrialId{1};
    outcome.attempt = 1;
    session.on_end(outcome);
    session.more(1);
    throw DataError("the features are gone");
  };
  RunningWorker worker(daemon, train, options);
  daemon.welcome();
  daemon.send(pack_of({1, 2, 3, 4}));
  EXPECT_EQ(daemon.expect<Result>().outcome.outcome, Outcome::completed);
  for (const std::int64_t trial : {2, 3}) {
    const TrialOutcome outcome = daemon.expect<Result>().outcome;
    EXPECT_EQ(outcome.trial, TrialId{trial});
    EXPECT_EQ(outcome.outcome, Outcome::failed);
    EXPECT_EQ(outcome.error, "the features are gone");
  }
  EXPECT_THAT(daemon.expect<Result>().outcome.error, HasSubstr("without a word"));
}

TEST(WorkerClientTest, WaitsForADaemonThatComesLater) {
  unsigned short port = 0;
  {
    ScriptedDaemon absent;
    port = absent.port();
  }
  auto daemon = std::make_unique<ScriptedDaemon>(port);
  const std::string url = daemon->url();
  daemon->die();
  FakeTrainer trainer;
  RunningWorker worker(*daemon, trainer);
  std::this_thread::sleep_for(50ms);
  daemon = std::make_unique<ScriptedDaemon>(port);
  EXPECT_EQ(daemon->welcome().name, "w1");
}

}  // namespace
}  // namespace fusion
