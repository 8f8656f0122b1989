#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "tests/end_to_end/process.h"
#include "tests/temporary_folder.h"
#include "tests/workers/client/scripted_daemon.h"

// Signals and exit status need a process of its own.
namespace fusion {
namespace {

using testing::Process;
using testing::ScriptedDaemon;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

protocol::Held held(std::int64_t trial) { return {TrialId{trial}, 1}; }

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
    pack.trials.push_back(job);
  }
  return pack;
}

class WorkerProcessTest : public ::testing::Test {
 protected:
  Process start(const std::string& grace_ms = "0") {
    return Process({PATIENT_WORKER, daemon_.url(), grace_ms}, {folder_.path(), {}});
  }
  testing::TemporaryFolder folder_;
  ScriptedDaemon daemon_;
};

TEST_F(WorkerProcessTest, SigtermGivesBackAndExitsWithZero) {
  Process worker = start();
  daemon_.welcome();
  daemon_.send(pack_of({1, 2}));
  daemon_.expect<protocol::Epoch>();
  worker.signal(SIGTERM);
  EXPECT_EQ(daemon_.expect<protocol::Leaving>().reason, "received SIGTERM");
  EXPECT_THAT(daemon_.expect<protocol::GiveBack>().held, ElementsAre(held(2)));
  EXPECT_THAT(daemon_.expect<protocol::GiveBack>().held, ElementsAre(held(1)));
  daemon_.expect_close();
  EXPECT_EQ(worker.wait(std::chrono::seconds(20)), 0) << worker.err();
}

TEST_F(WorkerProcessTest, SigtermTwiceIsSigtermOnce) {
  Process worker = start("300");
  daemon_.welcome();
  daemon_.send(pack_of({1}));
  daemon_.expect<protocol::Epoch>();
  worker.signal(SIGTERM);
  daemon_.expect<protocol::Leaving>();
  worker.signal(SIGTERM);
  EXPECT_THAT(daemon_.expect<protocol::GiveBack>().held, ElementsAre(held(1)));
  daemon_.expect_close();
  EXPECT_EQ(worker.wait(std::chrono::seconds(20)), 0) << worker.err();
}

TEST_F(WorkerProcessTest, ASecondSigintEndsItAtOnce) {
  Process worker = start("100000");
  daemon_.welcome();
  daemon_.send(pack_of({1}));
  daemon_.expect<protocol::Epoch>();
  worker.signal(SIGINT);
  EXPECT_EQ(daemon_.expect<protocol::Leaving>().reason, "received SIGINT");
  EXPECT_TRUE(worker.running());
  worker.signal(SIGINT);
  EXPECT_EQ(worker.wait(std::chrono::seconds(20)), 128 + SIGINT);
}

TEST_F(WorkerProcessTest, EverySignalToLeaveIsAlikeAndASecondOneLaterEndsTheGrace) {
  for (const int signal : {SIGUSR1, SIGUSR2, SIGHUP, SIGPIPE}) {
    Process worker = start("100000");
    daemon_.welcome();
    daemon_.send(pack_of({1}));
    daemon_.expect<protocol::Epoch>();
    worker.signal(signal);
    daemon_.expect<protocol::Leaving>();
    std::this_thread::sleep_for(std::chrono::milliseconds(2'100));  // longer than signal_pause
    EXPECT_TRUE(worker.running());
    worker.signal(SIGTERM);
    EXPECT_THAT(daemon_.expect<protocol::GiveBack>().held, ElementsAre(held(1)));
    daemon_.expect_close();
    EXPECT_EQ(worker.wait(std::chrono::seconds(20)), 0) << worker.err();
  }
}

TEST_F(WorkerProcessTest, ARefusedWorkerExitsWithTwoAndTheSentence) {
  Process worker = start();
  daemon_.accept();
  daemon_.expect<protocol::Hello>();
  daemon_.send(protocol::Refused{"run the same release on both sides"});
  EXPECT_EQ(worker.wait(std::chrono::seconds(20)), 2);
  EXPECT_THAT(worker.err(), HasSubstr("run the same release on both sides"));
}

TEST_F(WorkerProcessTest, TellsOfALostConnectionOnce) {
  Process worker = start();
  daemon_.welcome();
  daemon_.die();
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // several tries
  worker.signal(SIGTERM);
  EXPECT_EQ(worker.wait(std::chrono::seconds(20)), 0);
  const std::string log = worker.err();
  const std::string line = "no connection, trying again and again";
  ASSERT_THAT(log, HasSubstr(line));
  EXPECT_EQ(log.find(line), log.rfind(line)) << log;
}

}  // namespace
}  // namespace fusion
