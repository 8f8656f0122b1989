// attack_run with smaller numbers: a real daemon, real sockets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/end_to_end/process.h"
#include "tests/slowness.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using nlohmann::json;

TEST(AttackTest, EveryAttackIsRefusedWithTheRightCodeAndHonestClientsAreServedMeanwhile) {
  testing::TemporaryFolder folder;
  const int allowed_mb = 256 * testing::slowness();  // a sanitizer keeps what was freed
  const testing::Finished finished = testing::run({testing::program("attack_run"), "--half-open", "1500", "--slow", "20", "--memory-mb",
                                                   std::to_string(allowed_mb), "--json"},
                                                  {folder.path(), {}}, std::chrono::seconds(500));
  const json report = json::parse(finished.out, nullptr, false);
  ASSERT_TRUE(report.is_object()) << finished.out << finished.err;
  for (const json& attack : report["attacks"]) EXPECT_TRUE(attack["ok"]) << attack.dump();
  for (const auto& [who, served] : report["honest"].items()) {
    EXPECT_GT(served["requests"], 0) << who;
    EXPECT_EQ(served["failed"], 0) << who << served.dump();
  }
  EXPECT_TRUE(report["daemon_alive"]);
  EXPECT_LT(report["rss_peak_mb"], allowed_mb);
  EXPECT_EQ(finished.status, 0) << finished.err;
  EXPECT_GE(report["attacks"].size(), 60u) << "kinds of attack";
}

}  // namespace
}  // namespace fusion
