#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "base/json_reader.h"
#include "tests/end_to_end/small_features.h"
#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::System;
using ::testing::HasSubstr;

/// Every network of one step on the small features, which carry a best pair of taps: 12 of them, 9 epochs each.
json study(bool early_stopping) {
  json study = System::small_study();
  study["space"] = {{"steps", {{"max", 1}}}};
  study["strategy"] = {{"name", "exhaustive"}};
  study["training"] = {{"epochs", 9}, {"dropout", 0.1}, {"width", 64}};
  if (early_stopping) study["early_stopping"] = {{"policy", "asha"}};
  return study;
}

std::int64_t epochs_trained(System& system, std::int64_t id) {
  return system.sql("select count(*) from epochs join trials on trials.id = trial_id where study_id = " + std::to_string(id))[0][0];
}

json best_taps(System& system, std::int64_t id) {
  const json architecture = json::parse(
      system.sql("select architecture from leaderboard where rank = 1 and study_id = " + std::to_string(id))[0][0].get<std::string>());
  return {architecture[0][0], architecture[0][1]};
}

void expect_whole(System& system, std::int64_t id, std::int64_t trials) {
  const std::string of = " and study_id = " + std::to_string(id);
  EXPECT_EQ(system.sql("select count(*) from trials where state = 'completed' and dev_score is not null" + of)[0][0], trials);
  EXPECT_EQ(system.sql("select count(distinct told_index), min(told_index), max(told_index) from trials where 1" + of)[0],
            json::array({trials, 0, trials - 1}));
  EXPECT_EQ(system.sql("select count(*) from trials as t join attempts as a on a.trial_id = t.id and a.attempt = t.scored_attempt"
                       " where (a.outcome = 'pruned') <> t.pruned" + of)[0][0], 0);
  EXPECT_EQ(system.sql("select count(*) from leaderboard as l join trials as t on t.id = l.trial where t.pruned")[0][0], 0);
}

/// An epoch that takes longer than the way to the daemon's disk and back: what is decided then comes in time.
void write_longer_features(System& system) { testing::write_small_features(system.folder() / "features", {40000, 200, 200, 1, true}); }

TEST(EarlyStoppingRunTest, FewerEpochsAreTrainedAndTheBestIsFound) {
  System system;
  write_longer_features(system);
  system.start(1);
  const auto whole = system.submit(study(false));
  EXPECT_EQ(system.wait_for(whole), "completed");
  EXPECT_EQ(epochs_trained(system, whole), 12 * 9);
  const auto early = system.submit(study(true));
  EXPECT_EQ(system.wait_for(early), "completed");
  expect_whole(system, early, 12);
  const std::int64_t epochs = epochs_trained(system, early);
  EXPECT_LT(epochs, 90) << "of 108";
  EXPECT_EQ(best_taps(system, early), best_taps(system, whole));
  const std::int64_t pruned = system.sql("select count(*) from trials where pruned")[0][0];
  EXPECT_GE(pruned, 4);
  RecordProperty("epochs", static_cast<int>(epochs));

  const json shown = system.ctl_json({"status", "2"})["study"];
  EXPECT_EQ(shown["trials"]["pruned"], pruned);
  EXPECT_THAT(system.ctl({"status", "2"}).out, HasSubstr("12 completed (" + std::to_string(pruned) + " of them pruned)"));
  EXPECT_THAT(system.ctl({"trials", "2"}).out, HasSubstr("pruned"));
  const json one = system.sql("select t.id, a.error from trials as t join attempts as a on a.trial_id = t.id where t.pruned and a.outcome = 'pruned' limit 1");
  ASSERT_FALSE(one.empty());
  EXPECT_THAT(one.dump(), HasSubstr("is not among the best"));
  EXPECT_THAT(system.ctl({"show", std::to_string(one[0][0].get<std::int64_t>())}).out, HasSubstr(": pruned"));
  EXPECT_EQ(system.ctl({"export", "2", "--top", "12", "-o", (system.folder() / "best.json").string()}).status, 0);
  EXPECT_EQ(parse_json_file(system.folder() / "best.json")["architectures"].size(), static_cast<std::size_t>(12 - pruned));
  EXPECT_EQ(system.stop(), 0);
}

TEST(EarlyStoppingRunTest, ADaemonKilledInMidStudyGoesOnPruning) {
  System system;
  write_longer_features(system);
  system.start(1);
  const auto id = system.submit(study(true));
  for (const std::int64_t when : {2, 5, 8}) {
    system.wait_for_completed(id, when);
    system.kill_daemon();
    system.start(1);
  }
  EXPECT_EQ(system.wait_for(id), "completed");
  expect_whole(system, id, 12);
  EXPECT_GE(system.sql("select count(*) from trials where pruned")[0][0], 1);
  EXPECT_EQ(system.stop(), 0);
}

}  // namespace
}  // namespace fusion
