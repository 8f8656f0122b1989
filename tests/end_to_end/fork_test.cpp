// Forks of a real daemon, by workers of the real protocol that score without training.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::System;
using ::testing::HasSubstr;

class ForkEndToEndTest : public ::testing::Test {
 protected:
  json trials(std::int64_t study, bool inherited) {
    return system.sql("select architecture, replica, seed, facts, dev_score from trials where study_id = " + std::to_string(study) +
                      " and inherited_from is " + (inherited ? "not null" : "null") + " order by ask_index");
  }
  std::int64_t fork(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "fork");
    return system.ctl_json(arguments)["study"]["id"].get<std::int64_t>();
  }
  void expect_replayable() {
    const testing::Finished replayed = system.ctl({"replay", (system.folder() / "fusion.db").string()});
    EXPECT_EQ(replayed.status, 0) << replayed.out << replayed.err;
  }
  System system;
};

TEST_F(ForkEndToEndTest, TheSameOptionsGiveWhatTheParentGaveOtherOptionsGoOn) {
  system.start(2, {{"--worker-program", POISONED_WORKER}});
  const auto parent = system.submit(System::small_study());
  ASSERT_EQ(system.wait_for(parent), "completed");
  const json shown = system.ctl_json({"fork", "--study", "1", "--at", "15"})["study"];
  EXPECT_EQ(shown["forked_from"], 1);
  EXPECT_EQ(shown["forked_at"], 15);
  EXPECT_EQ(shown["observed"], 0);
  EXPECT_EQ(shown["name"], "small (fork at 15)");
  EXPECT_EQ(system.wait_for(2), "completed");
  const json rest = system.sql("select architecture, replica, seed, facts, dev_score from trials where study_id = 1 and told_index >= 15 order by ask_index");
  EXPECT_EQ(trials(2, false), rest);
  EXPECT_EQ(trials(2, true).size(), 15u);
  EXPECT_EQ(system.ctl_json({"status", "2"})["study"]["trials"]["total"], 27);

  write_atomically(system.folder() / "changes.json", json{{"strategy", {{"name", "random"}, {"trials", 30}}}, {"name", "wide"}}.dump());
  const auto wide = fork({"--study", "1", "--options", (system.folder() / "changes.json").string(), "--seed", "9"});
  EXPECT_EQ(system.wait_for(wide), "completed");
  EXPECT_EQ(system.sql("select forked_at, observed, name from studies where id = 3")[0], json::parse(R"([27, 27, "wide"])"));
  EXPECT_EQ(system.sql("select count(*) from (select architecture from trials where study_id = 3 group by 1 having count(*) > 1)")[0][0], 0);
  EXPECT_GT(trials(wide, false).size(), 0u);
  expect_replayable();
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(ForkEndToEndTest, AForkOfARunningStudyGoesOnAfterTheDaemonWasKilled) {
  system.start(2, {{"--worker-program", POISONED_WORKER}});
  const auto parent = system.submit(System::small_study());
  system.wait_for_completed(parent, 4);
  const auto child = fork({"--study", "1", "--at", "4", "--set", "strategy.samples=4", "--priority", "3"});
  system.wait_for_completed(child, 7);
  expect_replayable();  // beside the running daemon
  system.kill_daemon();
  system.start(2, {{"--worker-program", POISONED_WORKER}});
  EXPECT_EQ(system.wait_for(child), "completed");
  EXPECT_EQ(system.wait_for(parent), "completed");
  EXPECT_EQ(system.sql("select spec ->> '$.strategy.samples', priority from studies where id = 2")[0], json::parse("[4, 3]"));
  expect_replayable();
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(ForkEndToEndTest, RefusedForksLeaveNothing) {
  system.start(0);
  const auto parent = system.submit(System::small_study());
  const auto refused = [&](std::vector<std::string> arguments, const std::string& words) {
    arguments.insert(arguments.begin(), "fork");
    const testing::Finished finished = system.ctl(arguments);
    EXPECT_EQ(finished.status, 2) << words;
    EXPECT_THAT(finished.err, HasSubstr(words));
  };
  refused({"--study", "9"}, "there is no study 9");
  refused({"--study", "1", "--at", "3"}, "/at: expected 0 to 0, the trials of study 1 that were told so far");
  refused({"--study", "1", "--set", "dataset=x"}, "/dataset: cannot change in a fork");
  refused({"--study", "1", "--set", "strategy.smaples=3"}, "did you mean \"samples\"");
  refused({"--study", "1", "--set", "strategy"}, "--set: expected KEY=VALUE");
  refused({"--study", "1", "--options", "missing.json"}, "missing.json");
  refused({}, "--study");
  EXPECT_EQ(system.sql("select count(*) from studies")[0][0], 1);
  const auto at_nothing = fork({"--study", std::to_string(parent), "--set", "training.epochs=1"});
  EXPECT_EQ(system.sql("select spec ->> '$.training.epochs', forked_at from studies where id = " + std::to_string(at_nothing))[0], json::parse("[1, 0]"));
  EXPECT_EQ(system.stop(), 0);
}

}  // namespace
}  // namespace fusion
