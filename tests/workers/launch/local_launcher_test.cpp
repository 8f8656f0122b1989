#include "workers/launch/local_launcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "tests/temporary_folder.h"
#include "workers/launch/child_process.h"

namespace fusion {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

/// Children are /bin/sh with a script that gets the test's folder as $0. The test's thread is the I/O thread.
class LocalLauncherTest : public ::testing::Test {
 protected:
  LocalLauncher& launch(const std::string& script, LocalLauncherOptions options = {}) {
    options.program = "/bin/sh";
    options.arguments = {"-c", script, folder_.path().string()};
    options.backoff_min = std::min<std::chrono::milliseconds>(options.backoff_min, 20ms);
    launcher_ = std::make_unique<LocalLauncher>(io_, options);
    launcher_->start();
    return *launcher_;
  }
  /// Runs handlers until it is true; fails after 20 s.
  void until(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << "it did not happen";
      io_.restart();
      io_.run_one_for(5ms);
    }
  }
  void stop() {
    bool stopped = false;
    launcher_->stop([&] { stopped = true; });
    EXPECT_FALSE(stopped) << "never from within";
    until([&] { return stopped; });
  }
  std::vector<std::string> lines(const std::string& name) const {
    std::ifstream stream(folder_ / name);
    std::vector<std::string> result;
    for (std::string line; std::getline(stream, line);) result.push_back(line);
    return result;
  }
  LaunchedWorker worker(std::size_t index = 0) const { return launcher_->workers().at(index); }

  testing::TemporaryFolder folder_;
  asio::io_context io_{1};
  std::unique_ptr<LocalLauncher> launcher_;
};

TEST_F(LocalLauncherTest, StartsSoManyAndStopsThem) {
  LocalLauncherOptions options;
  options.count = 3;
  launch("echo $$ >> $0/pids; exec sleep 1000", options);
  until([&] { return lines("pids").size() == 3; });
  std::set<std::string> known;
  for (const LaunchedWorker& w : launcher_->workers()) {
    EXPECT_EQ(w.state, "running");
    EXPECT_EQ(w.starts, 1);
    known.insert(std::to_string(w.process));
  }
  const std::vector<std::string> pids = lines("pids");
  EXPECT_EQ(known, std::set<std::string>(pids.begin(), pids.end()));
  stop();
  for (const std::string& pid : pids) EXPECT_NE(::kill(std::stoi(pid), 0), 0) << "still there, or not reaped";
  EXPECT_EQ(worker().state, "stopped");
  EXPECT_EQ(worker().last_end, "signal 15");
}

TEST_F(LocalLauncherTest, StartsAgainWhatEnds) {
  launch("echo x >> $0/starts; [ $(wc -l < $0/starts) -ge 3 ] && exec sleep 1000; exit 1");
  until([&] { return lines("starts").size() == 3; });
  EXPECT_EQ(worker().starts, 3);
  EXPECT_EQ(worker().last_end, "exit status 1");
  EXPECT_EQ(worker().state, "running");
  stop();
}

TEST_F(LocalLauncherTest, StartsAgainWhatIsKilledAndLeavesTheOthersAlone) {
  LocalLauncherOptions options;
  options.count = 2;
  launch("exec sleep 1000", options);
  const std::int64_t killed = worker(0).process, other = worker(1).process;
  ::kill(static_cast<pid_t>(killed), SIGKILL);
  until([&] { return worker(0).starts == 2 && worker(0).state == "running"; });
  EXPECT_NE(worker(0).process, killed);
  EXPECT_EQ(worker(0).last_end, "signal 9");
  EXPECT_EQ(worker(1).process, other);
  stop();
}

TEST_F(LocalLauncherTest, ACrashLoopIsSlowedDown) {
  LocalLauncherOptions options;
  options.backoff_min = 20ms;
  options.backoff_max = 100'000s;
  launch("exit 1", options);
  // Pauses of 20, 40, 80, 160 ms: after 250 ms there were at most 5 starts; without doubling there would be a dozen.
  const auto end = std::chrono::steady_clock::now() + 250ms;
  until([&] { return std::chrono::steady_clock::now() >= end; });
  EXPECT_GE(worker().starts, 2);
  EXPECT_LE(worker().starts, 5);
}

TEST_F(LocalLauncherTest, AWorkerThatLivedLongStartsAgainAfterTheFirstPause) {
  LocalLauncherOptions options;
  options.settled = 0ms;
  options.backoff_min = 1ms;
  launch("exit 1", options);
  until([&] { return worker().starts >= 15; });  // doubled, the last pause alone would be 8 s, all together 16 s
  stop();
}

TEST_F(LocalLauncherTest, GivesUpWhatSaysThatItsInputIsWrong) {
  LocalLauncherOptions options;
  options.count = 2;
  launch("mkdir $0/first 2> /dev/null && exit 2; exec sleep 1000", options);
  const auto given_up = [&](std::size_t i) { return worker(i).state == "given_up"; };
  until([&] { return given_up(0) || given_up(1); });
  const std::size_t lost = given_up(0) ? 0 : 1;
  EXPECT_EQ(worker(lost).starts, 1);
  EXPECT_EQ(worker(lost).last_end, "exit status 2");
  EXPECT_EQ(worker(lost).process, 0);
  EXPECT_EQ(worker(1 - lost).state, "running");
  stop();
  EXPECT_EQ(worker(lost).state, "given_up");
}

TEST_F(LocalLauncherTest, KillsWhatIgnoresSigterm) {
  LocalLauncherOptions options;
  options.stop_wait = 100ms;
  launch("trap '' TERM; echo ready > $0/ready; while true; do sleep 0.05; done", options);
  until([&] { return !lines("ready").empty(); });
  stop();
  EXPECT_EQ(worker().last_end, "signal 9");
}

TEST_F(LocalLauncherTest, StopWithoutAnythingRunningIsDoneToo) {
  launch("exit 2");
  until([&] { return worker().state == "given_up"; });
  stop();
  LocalLauncherOptions none;
  none.count = 0;
  launch("exit 0", none);
  stop();
}

TEST_F(LocalLauncherTest, StopDuringThePauseStartsNothing) {
  LocalLauncherOptions options;
  options.backoff_min = 20ms;
  launch("echo x >> $0/starts; exit 1", options);
  until([&] { return worker().state == "waiting"; });
  stop();
  const int starts = worker().starts;
  const auto end = std::chrono::steady_clock::now() + 100ms;
  until([&] { return std::chrono::steady_clock::now() >= end; });
  EXPECT_EQ(worker().starts, starts);
  EXPECT_EQ(worker().state, "stopped");
}

TEST_F(LocalLauncherTest, GrowsAndLetsGo) {
  LocalLauncherOptions options;
  options.count = 1;
  options.name_prefix = "p";
  options.leave_wait = options.stop_wait = 50ms;
  launch("echo $2 >> $0/names; trap '' TERM; while true; do sleep 0.05; done", options);
  launcher_->launch(2);
  until([&] { return lines("names").size() == 3; });
  EXPECT_EQ(launcher_->withdraw(3), 0) << "all of them run";
  launcher_->retire({"p-1", "p-7"});
  EXPECT_EQ(worker(1).state, "leaving");
  EXPECT_FALSE(worker(1).counts());
  until([&] { return launcher_->workers().size() == 2; });  // it was asked, then told, then killed
  launcher_->launch(1);
  until([&] { return lines("names").size() == 4; });
  EXPECT_EQ(lines("names").back(), "p-1") << "the lowest place that is free";
  stop();
}

TEST_F(LocalLauncherTest, WhatWaitsForItsNextStartIsTakenBack) {
  LocalLauncherOptions options;
  options.backoff_min = 20ms;
  options.backoff_max = 100'000s;
  options.name_prefix = "p";
  launch("exit 1", options);
  until([&] { return worker().state == "waiting" && worker().starts >= 4; });
  EXPECT_EQ(launcher_->problem(), "p-0 ended (exit status 1) and is started again after a pause");
  EXPECT_EQ(launcher_->withdraw(2), 1);
  EXPECT_TRUE(launcher_->workers().empty());
  EXPECT_EQ(launcher_->problem(), "");
  stop();
}

TEST_F(LocalLauncherTest, ADestroyedLauncherLeavesNoProcess) {
  launch("trap '' TERM; while true; do sleep 0.05; done");
  const auto pid = static_cast<pid_t>(worker().process);
  launcher_.reset();
  EXPECT_NE(::kill(pid, 0), 0);
  io_.restart();
  io_.run_for(20ms);  // handlers that were under way find nobody
}

TEST_F(LocalLauncherTest, ChildrenGetTheirNameDeviceThreadsAndCore) {
  LocalLauncherOptions options;
  options.device = "cpu";
  options.name_prefix = "pool";
  options.environment = {{"OMP_NUM_THREADS", "3"}};
  launch("echo \"$1 $2 $3 $4 $5 $OMP_NUM_THREADS $OPENBLAS_NUM_THREADS $FUSION_PARENT_PID $(grep Cpus_allowed_list /proc/self/status)\" "
         "> $0/seen.tmp; mv $0/seen.tmp $0/seen; exec sleep 1000",
         options);
  until([&] { return !lines("seen").empty(); });
  EXPECT_EQ(lines("seen")[0], "--name pool-0 --device cpu --die-with-parent 3 1 " + std::to_string(::getpid()) +
                                  " Cpus_allowed_list:\t" + std::to_string(usable_cores().front()));
  EXPECT_EQ(worker().name, "pool-0");
  stop();
}

TEST_F(LocalLauncherTest, SpreadsWorkersOverTheGpus) {
  ::setenv("CUDA_VISIBLE_DEVICES", "0,3", 1);
  LocalLauncherOptions options;
  options.count = 3;
  options.device = "cuda";
  options.name_prefix = "";
  launch("echo $2 >> $0/devices; exec sleep 1000", options);
  ::unsetenv("CUDA_VISIBLE_DEVICES");
  until([&] { return lines("devices").size() == 3; });
  EXPECT_THAT(lines("devices"), ::testing::UnorderedElementsAre("cuda:0", "cuda:1", "cuda:0"));
  stop();
}

TEST_F(LocalLauncherTest, ChildrenInheritNoSocket) {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_GE(socket, 3);
  // The folder's own descriptor is the only one that ls opens.
  launch("ls /proc/self/fd > $0/fds.tmp; mv $0/fds.tmp $0/fds; exec sleep 1000");
  until([&] { return !lines("fds").empty(); });
  EXPECT_THAT(lines("fds"), ::testing::ElementsAre("0", "1", "2", "3"));
  ::close(socket);
  stop();
}

TEST_F(LocalLauncherTest, AProgramThatIsNotThereIsASentence) {
  LocalLauncherOptions options;
  options.program = (folder_ / "no-such-worker").string();
  LocalLauncher launcher(io_, options);
  EXPECT_THAT([&] { launcher.start(); }, ::testing::ThrowsMessage<ConfigError>(HasSubstr("no-such-worker is not there")));
  write_atomically(folder_ / "no-such-worker", "text");
  EXPECT_THROW(launcher.start(), ConfigError);
}

}  // namespace
}  // namespace fusion
