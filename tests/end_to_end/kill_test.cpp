#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <thread>

#include "base/files.h"
#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::System;

/// Every proposal and every fit is what the recorded history leads to.
void expect_replayable(System& system) {
  const testing::Finished replayed = system.ctl({"replay", (system.folder() / "fusion.db").string()});
  EXPECT_EQ(replayed.status, 0) << replayed.out << replayed.err;
}

/// Every trial completed, told once, with exactly one completed attempt; nothing left over.
void expect_each_scored_once(System& system, std::int64_t trials) {
  EXPECT_EQ(system.sql("select count(*) from trials where state = 'completed' and dev_score is not null")[0][0], trials);
  EXPECT_EQ(system.sql("select count(*) from trials where state <> 'completed'")[0][0], 0);
  EXPECT_EQ(system.sql("select count(distinct told_index), min(told_index), max(told_index) from trials")[0],
            json::array({trials, 0, trials - 1}));
  EXPECT_EQ(system.sql("select count(*) from (select trial_id from attempts where outcome = 'completed' group by trial_id having count(*) = 1)")[0][0],
            trials);
  EXPECT_EQ(system.sql("select count(*) from attempts where outcome is null")[0][0], 0);
  const testing::Finished checked = testing::run(
      {"/usr/bin/sqlite3", (system.folder() / "fusion.db").string(), "pragma integrity_check"}, system.options());
  EXPECT_EQ(checked.out, "ok\n") << checked.err;
}

json proposals(System& system) { return system.sql("select ask_index, architecture, seed from trials order by ask_index"); }

/// What an undisturbed run proposes and scores.
json undisturbed() {
  static const json result = [] {
    System system;
    system.start(2);
    const auto study = system.submit(System::small_study());
    EXPECT_EQ(system.wait_for(study), "completed");
    json rows = system.sql("select ask_index, architecture, seed, dev_score from trials order by ask_index");
    EXPECT_EQ(system.stop(), 0);
    return rows;
  }();
  return result;
}

TEST(KillTest, WorkersKilledInMidTrialCostNothing) {
  System system;
  system.start(2);
  const auto study = system.submit(System::small_study());
  int killed = 0;
  for (const std::int64_t when : {2, 8, 15}) {
    system.wait_for_completed(study, when);
    const auto children = system.daemon().children();
    if (children.empty()) continue;
    ::kill(children.front(), SIGKILL);
    ++killed;
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  EXPECT_GE(killed, 2);
  EXPECT_EQ(system.wait_for(study), "completed");
  expect_each_scored_once(system, 27);
  expect_replayable(system);
  EXPECT_EQ(system.sql("select ask_index, architecture, seed, dev_score from trials order by ask_index"), undisturbed());
  EXPECT_EQ(system.stop(), 0);
}

TEST(KillTest, TheDaemonKilledInMidStudyGoesOnWhereItStood) {
  System system;
  system.start(2);
  const auto study = system.submit(System::small_study());
  for (const std::int64_t when : {3, 13, 18, 24}) {
    system.wait_for_completed(study, when);
    system.kill_daemon();
    system.start(2);
  }
  EXPECT_EQ(system.wait_for(study), "completed");
  expect_each_scored_once(system, 27);
  expect_replayable(system);
  EXPECT_EQ(system.sql("select ask_index, architecture, seed, dev_score from trials order by ask_index"), undisturbed());
  EXPECT_EQ(system.stop(), 0);
}

TEST(KillTest, AWorkerOutlivesTheDaemonAndDeliversItsResult) {
  System system;
  system.start(0);
  json study = System::small_study();
  study["training"]["epochs"] = 400;  // long enough to lose the daemon in the middle of one trial
  study["strategy"] = {{"name", "random"}, {"trials", 1}};
  const auto id = system.submit(study);
  const auto url = system.options().environment.at("FUSION_URL");
  const std::string port = url.substr(url.rfind(':') + 1);
  testing::Process worker({testing::program("fusion-worker"), "--name", "faithful"}, system.options());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (system.sql("select count(*) from epochs")[0][0] == 0 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  system.kill_daemon();
  system.start(0, {{"--listen", "127.0.0.1:" + port}, {"--reconnect-grace-s", "20"}});
  EXPECT_EQ(system.wait_for(id), "completed");
  EXPECT_EQ(system.sql("select count(*) from attempts")[0][0], 1) << "the worker that came back kept its attempt";
  EXPECT_EQ(system.sql("select max(epoch) from epochs")[0][0], 400);
  EXPECT_EQ(system.stop(), 0);
}

TEST(KillTest, ASecondSigtermEndsTheDaemonAtOnce) {
  System system;
  write_atomically(system.folder() / "deaf", "#!/bin/sh\ntrap '' TERM\nfor i in 1 2 3 4 5 6 7 8 9 10; do sleep 1; done\n");
  std::filesystem::permissions(system.folder() / "deaf", std::filesystem::perms::owner_all);
  system.start(1, {{"--worker-program", (system.folder() / "deaf").string()}});
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // until the shell is deaf
  system.daemon().signal(SIGTERM);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_TRUE(system.daemon().running()) << "it waits for its worker";
  system.daemon().signal(SIGTERM);
  EXPECT_EQ(system.daemon().wait(std::chrono::seconds(5)), 128 + SIGTERM);
}

TEST(KillTest, SigtermStopsEverythingAndTheNextStartResumes) {
  System system;
  system.start(2);
  const auto study = system.submit(System::small_study());
  system.wait_for_completed(study, 4);
  const auto children = system.daemon().children();
  EXPECT_EQ(system.stop(), 0);
  for (const pid_t child : children) EXPECT_NE(::kill(child, 0), 0) << "a local worker outlived its daemon";
  system.start(2);
  EXPECT_EQ(system.wait_for(study), "completed");
  expect_each_scored_once(system, 27);
  expect_replayable(system);
  EXPECT_EQ(system.sql("select count(*) from attempts where outcome = 'failed'")[0][0], 0);
  EXPECT_EQ(proposals(system).size(), 27u);
  EXPECT_EQ(system.stop(), 0);
}

}  // namespace
}  // namespace fusion
