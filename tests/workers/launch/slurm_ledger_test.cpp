#include "workers/launch/slurm_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fusion {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kIdentity = "fusion:ab12:pool:";

SlurmJob job(std::int64_t array, int index, const std::string& state, const std::string& launch = "l1", const std::string& reason = "") {
  return {array + index, array, index, state, reason, "", state == "RUNNING" ? "node1" : "", kIdentity + launch};
}

class SlurmLedgerTest : public ::testing::Test {
 protected:
  SlurmLedger::Polled poll(const std::vector<SlurmJob>& jobs) {
    clock.advance(10s);
    return ledger.take(jobs, clock.steady() - 1s, clock.steady());
  }
  void submit(int count, std::int64_t array = 10, const std::string& launch = "l1") {
    ledger.sending(launch, count);
    ledger.submitted(launch, array, clock.steady());
  }
  std::vector<std::string> states() const {
    std::vector<std::string> list;
    for (const LaunchedWorker& worker : ledger.workers(clock.steady())) list.push_back(worker.name + " " + worker.state);
    return list;
  }
  ManualClock clock;
  SlurmLedger ledger{{kIdentity, 60s, 300s}};
};

TEST_F(SlurmLedgerTest, WhatIsBeingSubmittedCounts) {
  ledger.sending("l1", 3);
  EXPECT_EQ(ledger.size(), 3);
  EXPECT_TRUE(ledger.in_doubt());
  ledger.submitted("l1", 10, clock.steady());
  EXPECT_EQ(ledger.size(), 3);
  EXPECT_FALSE(ledger.in_doubt());
  EXPECT_THAT(states(), ElementsAre("10_0 waiting", "10_1 waiting", "10_2 waiting"));
  ledger.sending("l2", 2);
  ledger.refused("l2");
  EXPECT_EQ(ledger.size(), 3);
}

TEST_F(SlurmLedgerTest, KnowsThoseWhoseWorkerNeverCame) {
  submit(3);
  EXPECT_EQ(ledger.untried(), 3);
  poll({job(10, 0, "RUNNING"), job(10, 1, "RUNNING"), job(10, 2, "PENDING")});
  EXPECT_EQ(ledger.untried(), 3);
  ledger.connected({"10_0"});
  ledger.connected({});
  EXPECT_EQ(ledger.untried(), 2) << "it came, whether it is here or not";
  ledger.retire("10_1", clock.steady());
  EXPECT_EQ(ledger.untried(), 1) << "nobody counts on that";
  const auto polled = poll({job(10, 0, "RUNNING"), job(10, 1, "CANCELLED"), job(10, 2, "FAILED")});
  ASSERT_EQ(polled.ended.size(), 2u);
  EXPECT_EQ(polled.ended[1].launch, "l1");
  EXPECT_EQ(ledger.untried(), 0);
}

TEST_F(SlurmLedgerTest, FollowsAJobThroughARequeue) {
  submit(1);
  for (const char* state : {"RUNNING", "COMPLETING", "PENDING", "RUNNING"}) {
    EXPECT_THAT(poll({job(10, 0, state)}).ended, IsEmpty()) << state;
    EXPECT_EQ(ledger.size(), 1) << state;
  }
  const auto polled = poll({job(10, 0, "COMPLETED")});
  ASSERT_EQ(polled.ended.size(), 1u);
  EXPECT_EQ(polled.ended[0].name, "10_0");
  EXPECT_EQ(polled.ended[0].state, "COMPLETED");
  EXPECT_FALSE(polled.ended[0].joined);
  EXPECT_EQ(ledger.size(), 0);
  EXPECT_THAT(poll({job(10, 0, "COMPLETED")}).ended, IsEmpty()) << "told once";
}

TEST_F(SlurmLedgerTest, PreemptedIsFinalOnlyWhenItStays) {
  submit(2);
  EXPECT_THAT(poll({job(10, 0, "PREEMPTED"), job(10, 1, "PREEMPTED")}).ended, IsEmpty());
  EXPECT_EQ(ledger.size(), 2);
  const auto polled = poll({job(10, 0, "PENDING"), job(10, 1, "PREEMPTED")});
  ASSERT_EQ(polled.ended.size(), 1u);
  EXPECT_EQ(polled.ended[0].name, "10_1");
  EXPECT_EQ(ledger.size(), 1);
}

TEST_F(SlurmLedgerTest, OneAbsentIsGoneAfterTwoPollsAndAMinute) {
  submit(1);
  EXPECT_THAT(ledger.take({}, clock.steady() - 1s, clock.steady()).ended, IsEmpty()) << "that poll began before sbatch had answered";
  EXPECT_THAT(poll({}).ended, IsEmpty());
  EXPECT_THAT(poll({}).ended, IsEmpty()) << "absent twice, but young";
  EXPECT_EQ(ledger.size(), 1);
  clock.advance(60s);
  const auto polled = poll({});
  ASSERT_EQ(polled.ended.size(), 1u);
  EXPECT_EQ(polled.ended[0].state, "no longer known to Slurm");
}

TEST_F(SlurmLedgerTest, AnUnclearSubmissionIsFoundByItsLaunchId) {
  ledger.sending("l1", 2);
  ledger.unclear("l1", clock.steady());
  EXPECT_EQ(ledger.size(), 2);
  EXPECT_THAT(poll({job(10, 0, "PENDING"), job(10, 1, "RUNNING")}).adopted, ElementsAre("10_0", "10_1"));
  EXPECT_FALSE(ledger.in_doubt());
  EXPECT_EQ(ledger.size(), 2) << "never twice";
}

TEST_F(SlurmLedgerTest, AnUnclearSubmissionThatNobodySeesWasNone) {
  ledger.sending("l1", 2);
  ledger.unclear("l1", clock.steady());
  EXPECT_THAT(ledger.take({}, clock.steady() - 1s, clock.steady()).lost_launches, IsEmpty()) << "that poll began too early to tell";
  EXPECT_THAT(poll({}).lost_launches, IsEmpty());
  EXPECT_EQ(ledger.size(), 2);
  EXPECT_THAT(poll({}).lost_launches, ElementsAre("l1"));
  EXPECT_EQ(ledger.size(), 0);
}

TEST_F(SlurmLedgerTest, APollThatIsFasterThanTheAnswerOfSbatchCountsNothingTwice) {
  ledger.sending("l1", 2);
  poll({job(10, 0, "RUNNING"), job(10, 1, "PENDING")});
  EXPECT_EQ(ledger.size(), 2);
  ledger.submitted("l1", 10, clock.steady());
  EXPECT_EQ(ledger.size(), 2);
  EXPECT_THAT(states(), ElementsAre("10_0 running", "10_1 waiting"));
  ledger.sending("l2", 1);
  poll({job(10, 0, "RUNNING"), job(10, 1, "PENDING"), job(20, 0, "PENDING", "l2")});
  ledger.unclear("l2", clock.steady());
  EXPECT_FALSE(ledger.in_doubt());
  EXPECT_EQ(ledger.size(), 3);
}

TEST_F(SlurmLedgerTest, AdoptsItsOwnAndNobodyElses) {
  SlurmJob other = job(30, 0, "RUNNING");
  other.comment = "fusion:ab12:pool2:l1";
  SlurmJob stranger = job(31, 0, "RUNNING");
  stranger.comment = "fusion:ffff:pool:l1";
  const auto polled = poll({job(10, 0, "RUNNING"), job(10, 1, "CANCELLED"), other, stranger});
  EXPECT_THAT(polled.adopted, ElementsAre("10_0"));
  EXPECT_THAT(polled.ended, IsEmpty()) << "what ended before this daemon's time is nobody's business";
  EXPECT_EQ(ledger.size(), 1);
}

TEST_F(SlurmLedgerTest, WithdrawsTheYoungestThatWait) {
  submit(3);
  poll({job(10, 0, "RUNNING"), job(10, 1, "PENDING"), job(10, 2, "PENDING")});
  EXPECT_THAT(ledger.withdraw(1, clock.steady()), ElementsAre("10_2"));
  EXPECT_EQ(ledger.size(), 2);
  EXPECT_THAT(ledger.withdraw(5, clock.steady()), ElementsAre("10_1")) << "the one that runs is not withdrawn";
  EXPECT_THAT(ledger.overdue(clock.steady(), 30s), ElementsAre("10_1", "10_2"));
  EXPECT_THAT(ledger.overdue(clock.steady(), 30s), IsEmpty());
  clock.advance(30s);
  EXPECT_THAT(ledger.overdue(clock.steady(), 30s), ElementsAre("10_1", "10_2")) << "scancel is said again";
  const auto polled = poll({job(10, 0, "RUNNING"), job(10, 1, "CANCELLED"), job(10, 2, "CANCELLED")});
  ASSERT_EQ(polled.ended.size(), 2u);
  EXPECT_TRUE(polled.ended[0].asked);
}

TEST_F(SlurmLedgerTest, OneThatIsToLeaveHasTime) {
  submit(1);
  poll({job(10, 0, "RUNNING")});
  EXPECT_TRUE(ledger.connected({"10_0", "somebody"}));
  EXPECT_FALSE(ledger.connected({"10_0"})) << "no longer for the first time";
  ledger.retire("10_0", clock.steady() + 30s);
  EXPECT_EQ(ledger.size(), 0);
  EXPECT_THAT(ledger.overdue(clock.steady(), 30s), IsEmpty());
  clock.advance(30s);
  EXPECT_THAT(ledger.overdue(clock.steady(), 30s), ElementsAre("10_0"));
}

TEST_F(SlurmLedgerTest, TellsWhyNothingRuns) {
  submit(2);
  EXPECT_EQ(ledger.complaint(clock.steady(), "http://x"), "");
  poll({job(10, 0, "PENDING", "l1", "Resources"), job(10, 1, "PENDING", "l1", "Resources")});
  EXPECT_EQ(ledger.complaint(clock.steady(), "http://x"), "2 x PENDING (Resources)");
  EXPECT_FALSE(ledger.all_held());
  poll({job(10, 0, "PENDING", "l1", "JobHeldAdmin"), job(10, 1, "RUNNING")});
  EXPECT_TRUE(ledger.all_held());
  clock.advance(300s);
  EXPECT_THAT(ledger.complaint(clock.steady(), "http://x"), HasSubstr("job 10_1 runs on node1, and its worker has not come for 300 s: can that node reach http://x?"));
  ledger.connected({"10_1"});
  EXPECT_EQ(ledger.complaint(clock.steady(), "http://x"), "1 x PENDING (JobHeldAdmin)");
}

TEST_F(SlurmLedgerTest, ChangesUntilAllWorkersHaveCome) {
  submit(1);
  EXPECT_TRUE(ledger.changing());
  poll({job(10, 0, "RUNNING")});
  EXPECT_FALSE(ledger.changing());
  ledger.connected({"10_0"});
  EXPECT_FALSE(ledger.changing());
  ledger.connected({});
  EXPECT_TRUE(ledger.changing()) << "it fell silent: Slurm may know why";
}

}  // namespace
}  // namespace fusion
