#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/files.h"
#include "base/json_reader.h"
#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::System;
using ::testing::HasSubstr;

TEST(StudyRunTest, AStudyRunsToItsEndAndEveryCommandShowsIt) {
  System system;
  system.start(2);
  const std::int64_t study = system.submit(System::small_study());
  ASSERT_EQ(study, 1);
  EXPECT_EQ(system.ctl({"watch", "1"}).status, 0);
  EXPECT_EQ(system.wait_for(study), "completed");

  const json shown = system.ctl_json({"status", "1"})["study"];
  EXPECT_EQ(shown["trials"]["completed"], 27);
  EXPECT_EQ(shown["trials"]["total"], 27);
  const json best = system.ctl_json({"best", "1", "--top", "3"})["trials"];
  ASSERT_EQ(best.size(), 3u);
  EXPECT_GE(best[0]["dev_score"].get<double>(), best[1]["dev_score"].get<double>());
  EXPECT_GT(best[0]["dev_score"].get<double>(), 0.55);  // chance is 0.25, one modality alone at most about 0.5
  EXPECT_TRUE(best[0]["test_score"].is_number());
  const json trial = system.ctl_json({"show", std::to_string(best[0]["id"].get<int>())})["trial"];
  EXPECT_EQ(trial["epochs"].size(), 2u);
  EXPECT_EQ(trial["attempt_log"][0]["outcome"], "completed");
  EXPECT_EQ(trial["attempt_log"][0]["engine"], "plain");
  EXPECT_FALSE(trial["attempt_log"][0]["torch_version"].get<std::string>().empty());
  // The study may have ended before the second worker was up.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (system.ctl_json({"workers"})["workers"].size() < 2 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  EXPECT_EQ(system.ctl_json({"workers"})["workers"].size(), 2u);
  EXPECT_EQ(system.ctl_json({"fits", "1"})["fits"].size(), 4u);
  EXPECT_EQ(system.ctl_json({"query", "select count(*) from trials"})["rows"][0][0], 27);
  EXPECT_EQ(system.ctl_json({"trials", "1", "--limit", "100"})["trials"].size(), 27u);

  EXPECT_EQ(system.ctl({"export", "1", "--top", "2", "-o", (system.folder() / "best.json").string()}).status, 0);
  const json exported = parse_json_file(system.folder() / "best.json");
  EXPECT_EQ(exported["format"], "fusiond-export-1");
  EXPECT_EQ(exported["architectures"].size(), 2u);
  EXPECT_EQ(exported["architectures"][0]["triplets"], best[0]["architecture"]);
  EXPECT_TRUE(exported["architectures"][0]["steps"][0]["taps"].contains("audio"));
  EXPECT_EQ(system.ctl({"replay", (system.folder() / "fusion.db").string()}).out,
            "study 1 \"small\": identical (27 proposals, 27 told, 4 fits)\n");
  for (const char* command : {"list", "workers", "health"}) EXPECT_EQ(system.ctl({command}).status, 0) << command;
  for (const char* command : {"status", "best", "trials", "fits", "events"}) EXPECT_EQ(system.ctl({command, "1"}).status, 0) << command;

  // a person with the sqlite3 shell
  const json leaders = system.sql("select * from leaderboard limit 5");
  EXPECT_EQ(leaders.size(), 5u);
  EXPECT_EQ(system.ctl({"shutdown"}).status, 0);
  EXPECT_EQ(system.daemon().wait(std::chrono::seconds(30)), 0);
}

TEST(StudyRunTest, StudiesRunSideBySideAndPriorityGoesFirst) {
  System system;
  system.start(0);
  json low = System::small_study(), high = System::small_study();
  low["strategy"] = {{"name", "random"}, {"trials", 12}};
  high["strategy"] = {{"name", "random"}, {"trials", 12}};
  high["priority"] = 5;
  high["seed"] = 8;
  const auto first = system.submit(low), second = system.submit(high);
  testing::Process worker({testing::program("fusion-worker"), "--name", "only"}, system.options());
  EXPECT_EQ(system.wait_for(first), "completed");
  EXPECT_EQ(system.wait_for(second), "completed");
  const json last_high = system.sql("select max(ended_ms) from trials where study_id = " + std::to_string(second));
  const json last_low = system.sql("select max(ended_ms) from trials where study_id = " + std::to_string(first));
  EXPECT_LT(last_high[0][0].get<std::int64_t>(), last_low[0][0].get<std::int64_t>());
  EXPECT_EQ(system.stop(), 0);
}

TEST(StudyRunTest, PauseResumeAndCancel) {
  System system;
  system.start(1);
  json first = System::small_study();
  first["training"]["epochs"] = 200;  // so long that the commands below come before its end
  const auto study = system.submit(first);
  system.wait_for_completed(study, 2);
  EXPECT_EQ(system.ctl_json({"pause", "1"})["study"]["state"], "paused");
  EXPECT_EQ(system.sql("select state from studies")[0][0], "paused");
  EXPECT_EQ(system.ctl_json({"resume", "1"})["study"]["state"], "running");
  system.wait_for_completed(study, 5);
  EXPECT_EQ(system.ctl_json({"cancel", "1", "--yes"})["study"]["state"], "cancelled");
  EXPECT_EQ(system.sql("select count(*) from trials where state in ('queued', 'leased')")[0][0], 0);
  EXPECT_EQ(system.ctl({"resume", "1"}).status, 2);
  // the daemon goes on with another study
  json next = System::small_study();
  next["strategy"] = {{"name", "exhaustive"}, {"max_steps", 1}};
  const auto other = system.submit(next);
  EXPECT_EQ(system.wait_for(other), "completed");
  EXPECT_EQ(system.sql("select count(*) from trials where state = 'completed' and study_id = 2")[0][0], 12);
  EXPECT_EQ(system.stop(), 0);
}

}  // namespace
}  // namespace fusion
