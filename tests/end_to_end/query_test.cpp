// People's SQL against a daemon that is at work.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::System;
using ::testing::HasSubstr;

TEST(QueryEndToEndTest, ACrossJoinIsEndedAtItsDeadlineWithASentenceAndTheStudyGoesOn) {
  System system;
  system.start(2, {{"--worker-program", POISONED_WORKER}});
  const auto study = system.submit(System::small_study());
  system.wait_for_completed(study, 3);
  const std::string join = "SELECT count(*) FROM trials a, trials b, trials c, trials d, trials e, trials f, trials g, trials h, trials i";
  const testing::Finished finished = system.ctl({"query", join, "--deadline", "0.3"});
  EXPECT_EQ(finished.status, 2);
  EXPECT_THAT(finished.err, HasSubstr("the query was stopped at its deadline of 300 ms"));
  EXPECT_EQ(system.ctl_json({"query", "SELECT 1"})["rows"][0][0], 1) << "the reader's thread is free again";
  EXPECT_EQ(system.wait_for(study), "completed");
  EXPECT_EQ(system.stop(), 0);
}

TEST(QueryEndToEndTest, RowsBeyondTheLimitAreNotSent) {
  System system;
  system.start(2, {{"--worker-program", POISONED_WORKER}});
  EXPECT_EQ(system.wait_for(system.submit(System::small_study())), "completed");
  const std::string sql = "SELECT a.id FROM trials a, trials b, trials c";
  const json cut = system.ctl_json({"query", sql, "--limit", "7"});
  EXPECT_EQ(cut["rows"].size(), 7u);
  EXPECT_EQ(cut["truncated"], true);
  EXPECT_THAT(system.ctl({"query", sql, "--limit", "7"}).err, HasSubstr("there are more than 7 rows; --limit raises the number"));
  EXPECT_EQ(system.stop(), 0);
}

}  // namespace
}  // namespace fusion
