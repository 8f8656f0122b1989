// Architectures that kill whoever trains them, and studies that only fail: real daemon, real workers, real SIGKILL.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::System;
using ::testing::HasSubstr;

/// Every configuration of one step: 3 x 2 taps, 2 activations.
json twelve_trials(int lost) {
  json study = System::small_study();
  study["space"]["steps"]["max"] = 1;
  study["strategy"] = {{"name", "exhaustive"}};
  study["retries"] = {{"lost", lost}};
  return study;
}

TEST(PoisonTest, AStudyCompletesThoughOneOfItsArchitecturesKillsEveryWorkerThatTrainsIt) {
  ::setenv("POISON", "[[1,0,0]]", 1);
  System system;
  system.start(2, {{"--worker-program", POISONED_WORKER}});
  const auto study = system.submit(twelve_trials(1));
  EXPECT_EQ(system.wait_for(study), "completed");
  EXPECT_EQ(system.sql("select count(*) from trials where state = 'completed'")[0][0], 11);
  const json poison = system.sql("select architecture, state, deaths, failures, error from trials where state <> 'completed'");
  ASSERT_EQ(poison.size(), 1u);
  EXPECT_EQ(poison[0][0], "[[1,0,0]]");
  EXPECT_EQ(poison[0][1], "failed");
  EXPECT_EQ(poison[0][2], 2);
  EXPECT_EQ(poison[0][3], 0) << "no retry was used";
  EXPECT_THAT(poison[0][4].get<std::string>(), HasSubstr("its worker died 2 times while it trained nothing but this trial"));
  EXPECT_EQ(system.sql("select count(distinct worker_id) from attempts where died")[0][0], 3) << "one by suspicion, two that proved it";
  EXPECT_EQ(system.sql("select count(*) from attempts where died and alone")[0][0], 2);
  EXPECT_EQ(system.sql("select count(*) from trials where deaths > 0")[0][0], 1) << "no neighbour is blamed";
  const std::string id = system.sql("select id from trials where state = 'failed'")[0][0].dump();
  EXPECT_THAT(system.ctl({"show", id}).out, HasSubstr("lost (died)"));
  EXPECT_EQ(system.stop(), 0);
}

TEST(PoisonTest, AStudyWhoseTrialsAllFailIsPausedAndGoesOnWhenItIsResumed) {
  ::unsetenv("POISON");
  System system;
  system.start(1, {{"--worker-program", POISONED_WORKER}});
  json document = twelve_trials(8);
  document["retries"] = 0;
  document["pause_on"] = {{"failures", 4}, {"within_s", 600}};
  document["training"]["dropout"] = 0.75;  // what the worker takes as a word to fail
  const auto study = system.submit(document);
  EXPECT_EQ(system.wait_for(study), "paused");
  EXPECT_THAT(system.ctl({"list"}).out, HasSubstr("failures in a row within"));
  EXPECT_THAT(system.ctl({"status", std::to_string(study)}).out, HasSubstr("failures in a row within"));
  EXPECT_EQ(system.sql("select count(*) from events where kind = 'study_paused' and text like '%failures in a row%'")[0][0], 1);
  system.kill_daemon();
  system.start(1, {{"--worker-program", POISONED_WORKER}});
  EXPECT_THAT(system.sql("select error from studies")[0][0].get<std::string>(), HasSubstr("fewer than 4 within 600 s"));
  EXPECT_EQ(system.ctl({"resume", std::to_string(study)}).status, 0);
  while (system.wait_for(study) == "paused") EXPECT_EQ(system.ctl({"resume", std::to_string(study)}).status, 0);
  EXPECT_EQ(system.sql("select count(*) from trials where state = 'failed'")[0][0], 12);
  EXPECT_EQ(system.stop(), 0);
}

}  // namespace
}  // namespace fusion
