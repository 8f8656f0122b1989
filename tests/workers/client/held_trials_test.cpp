#include "workers/client/held_trials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fusion {
namespace {

using protocol::Ack;
using protocol::Epoch;
using protocol::Held;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

protocol::Pack pack_of(std::initializer_list<std::int64_t> trials, int attempt = 1) {
  protocol::Pack pack;
  pack.study = StudyId{1};
  for (const std::int64_t trial : trials) {
    TrialJob job;
    job.trial = TrialId{trial};
    job.attempt = attempt;
    pack.trials.push_back(job);
  }
  return pack;
}

Held held(std::int64_t trial, int attempt = 1) { return {TrialId{trial}, attempt}; }

TrialOutcome failed(std::int64_t trial) {
  TrialOutcome outcome;
  outcome.trial = TrialId{trial};
  outcome.attempt = 1;
  outcome.outcome = Outcome::failed;
  outcome.error = "a reason";
  return outcome;
}

Epoch epoch(std::int64_t trial, int number) {
  Epoch epoch{TrialId{trial}, 1, {}};
  epoch.report.epoch = number;
  return epoch;
}

std::vector<SessionTrial> begin(HeldTrials& trials, std::size_t count = 1) {
  const auto header = trials.next_header();
  return header == nullptr ? std::vector<SessionTrial>{} : trials.begin(*header, count);
}

TEST(HeldTrialsTest, TrainsInTheOrderGiven) {
  HeldTrials trials;
  EXPECT_EQ(trials.next_header(), nullptr);
  EXPECT_EQ(trials.add(pack_of({5, 3, 9})), 3u);
  EXPECT_EQ(trials.next_header()->study, StudyId{1});
  const auto first = begin(trials, 2);
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[0].job.trial, TrialId{5});
  EXPECT_EQ(first[1].job.trial, TrialId{3});
  EXPECT_EQ(trials.training(), 2u);
  trials.finish(failed(5));
  EXPECT_EQ(trials.training(), 1u);
  EXPECT_EQ(begin(trials, 8).at(0).job.trial, TrialId{9});
  EXPECT_EQ(trials.next_header(), nullptr);
  EXPECT_THAT(trials.held(), ElementsAre(held(5), held(3), held(9)));
}

TEST(HeldTrialsTest, EqualHeadersTrainTogetherAndNoStudyPassesAnother) {
  HeldTrials trials;
  trials.add(pack_of({1, 2}));
  trials.add(pack_of({3}));
  protocol::Pack other = pack_of({4});
  other.study = StudyId{2};
  trials.add(other);
  trials.add(pack_of({5}));
  const auto header = trials.next_header();
  EXPECT_EQ(trials.begin(*header, 8).size(), 3u) << "over the borders of packs, up to the other study";
  EXPECT_THAT(trials.begin(*header, 8), IsEmpty());
  EXPECT_EQ(trials.next_header()->study, StudyId{2});
  EXPECT_EQ(begin(trials, 8).size(), 1u);
  EXPECT_EQ(trials.begin(*header, 8).size(), 1u);
}

TEST(HeldTrialsTest, EachTrialIsStoppedAlone) {
  HeldTrials trials;
  trials.add(pack_of({1, 2, 3}));
  const auto running = begin(trials, 2);
  EXPECT_TRUE(trials.cancel(held(2), "a reason"));
  EXPECT_FALSE(trials.cancel(held(3), "it waits"));
  EXPECT_FALSE(running[0].cancel.stop_requested());
  EXPECT_TRUE(running[1].cancel.stop_requested());
  EXPECT_FALSE(running[1].prune.stop_requested());
  EXPECT_TRUE(trials.prune(held(1), "behind"));
  EXPECT_FALSE(trials.prune(held(3), "it waits"));
  EXPECT_TRUE(running[0].prune.stop_requested());
  EXPECT_FALSE(running[0].cancel.stop_requested());
  EXPECT_EQ(trials.find_training(held(1))->pruned, "behind");
  EXPECT_EQ(trials.find_training(held(2))->cancelled, "a reason");
  EXPECT_EQ(trials.find_training(held(3)), nullptr);
  trials.stop_training();
  EXPECT_TRUE(running[0].cancel.stop_requested());
  EXPECT_TRUE(trials.find_training(held(1))->giving_back);
  trials.drop_training(held(1));
  EXPECT_THAT(trials.held(), ElementsAre(held(2), held(3)));
}

TEST(HeldTrialsTest, APackThatComesTwiceIsHeldOnce) {
  HeldTrials trials;
  trials.add(pack_of({1, 2, 3}));
  begin(trials);
  trials.finish(failed(1));
  begin(trials);
  EXPECT_EQ(trials.add(pack_of({1, 2, 3, 4, 4})), 1u);
  EXPECT_EQ(trials.add(pack_of({1}, 2)), 1u) << "another attempt is another thing";
  EXPECT_THAT(trials.held(), ElementsAre(held(1), held(2), held(3), held(4), held(1, 2)));
}

TEST(HeldTrialsTest, KeepsReportsUntilTheyAreAcknowledged) {
  HeldTrials trials;
  trials.add(pack_of({1}));
  begin(trials);
  EXPECT_TRUE(trials.add_epoch(epoch(1, 1)));
  EXPECT_TRUE(trials.add_epoch(epoch(1, 2)));
  EXPECT_FALSE(trials.add_epoch(epoch(2, 1))) << "not in training";
  EXPECT_TRUE(trials.acknowledge(Ack{"epoch", TrialId{1}, 1, 1, true}));
  EXPECT_FALSE(trials.acknowledge(Ack{"epoch", TrialId{1}, 1, 1, true}));
  EXPECT_FALSE(trials.acknowledge(Ack{"result", TrialId{1}, 1, 0, true}));
  trials.finish(failed(1));
  EXPECT_THAT(trials.unacknowledged(), ElementsAre(epoch(1, 2), protocol::Result{failed(1)}));
  EXPECT_FALSE(trials.acknowledge(Ack{"result", TrialId{1}, 2, 0, true})) << "another attempt";
  EXPECT_TRUE(trials.acknowledge(Ack{"result", TrialId{1}, 1, 0, false}));
  EXPECT_THAT(trials.unacknowledged(), IsEmpty());
  EXPECT_TRUE(trials.empty());
}

TEST(HeldTrialsTest, WhatIsGivenBackIsForgotten) {
  HeldTrials trials;
  trials.add(pack_of({1, 2, 3}));
  const auto running = begin(trials);
  trials.add_epoch(epoch(1, 1));
  EXPECT_THAT(trials.take_waiting(), ElementsAre(held(2), held(3)));
  EXPECT_FALSE(running[0].cancel.stop_requested());
  trials.stop_training();
  EXPECT_TRUE(running[0].cancel.stop_requested());
  trials.drop_training(held(1));
  EXPECT_TRUE(trials.empty());
  EXPECT_THAT(trials.held(), IsEmpty());
  EXPECT_THAT(trials.unacknowledged(), IsEmpty());
}

TEST(HeldTrialsTest, AWaitingTrialCanEndWithoutTraining) {
  HeldTrials trials;
  trials.add(pack_of({1, 2}));
  EXPECT_FALSE(trials.take_waiting(held(9)));
  trials.finish(failed(2));
  EXPECT_EQ(trials.waiting(), 1u);
  EXPECT_THAT(trials.held(), ElementsAre(held(2), held(1)));
}

}  // namespace
}  // namespace fusion
