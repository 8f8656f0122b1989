#include "workers/dispatch/study_queues.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fusion {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr StudyId kA{1}, kB{2}, kC{3};

DispatchStudy study(StudyId id, int priority = 0) {
  DispatchStudy s;
  s.id = id;
  s.priority = priority;
  return s;
}

TEST(StudyQueuesTest, NewTrialsComeInOrderBehindThoseThatCameBack) {
  StudyQueues queues;
  queues.put(study(kA));
  for (int t : {10, 11, 12}) queues.push(kA, TrialId{t});
  queues.push_again(kA, TrialId{7}, 7);
  queues.push_again(kA, TrialId{5}, 5);
  EXPECT_EQ(queues.ready(kA), 5u);
  EXPECT_THAT(queues.take(kA, 3), ElementsAre(TrialId{5}, TrialId{7}, TrialId{10}));
  EXPECT_THAT(queues.take(kA, 9), ElementsAre(TrialId{11}, TrialId{12}));
  EXPECT_EQ(queues.next(), std::nullopt);
}

TEST(StudyQueuesTest, EqualPrioritiesTakeTurnsAndHigherOnesGoFirst) {
  StudyQueues queues;
  for (const StudyId id : {kA, kB, kC}) queues.put(study(id, id == kC ? 1 : 0));
  for (int i = 0; i < 4; ++i) {
    for (const StudyId id : {kA, kB, kC}) queues.push(id, TrialId{id.value * 100 + i});
  }
  std::vector<StudyId> order;
  while (const auto next = queues.next()) {
    order.push_back(*next);
    queues.take(*next, 2);
  }
  EXPECT_THAT(order, ElementsAre(kC, kC, kA, kB, kA, kB));
}

TEST(StudyQueuesTest, PausedStudiesWaitAndPrioritiesChangeAtOnce) {
  StudyQueues queues;
  queues.put(study(kA));
  queues.put(study(kB));
  queues.push(kA, TrialId{1});
  queues.push(kB, TrialId{2});
  queues.set_paused(kA, true);
  EXPECT_EQ(queues.next(), kB);
  queues.set_paused(kB, true);
  EXPECT_EQ(queues.next(), std::nullopt);
  queues.set_paused(kA, false);
  queues.put(study(kB, 5));
  EXPECT_EQ(queues.next(), kB);
}

TEST(StudyQueuesTest, WhatStandsAsideIsAdmittedInItsTime) {
  StudyQueues queues;
  const SteadyTime now{};
  queues.put(study(kA));
  queues.hold_back(kA, TrialId{4}, 4, now + std::chrono::seconds(3));
  queues.push(kA, TrialId{9});
  EXPECT_EQ(queues.ready(kA), 1u);
  EXPECT_EQ(queues.waiting(kA), 2u);
  EXPECT_FALSE(queues.admit(now + std::chrono::seconds(2)));
  EXPECT_TRUE(queues.admit(now + std::chrono::seconds(3)));
  EXPECT_THAT(queues.take(kA, 9), ElementsAre(TrialId{4}, TrialId{9}));
}

TEST(StudyQueuesTest, ErasesFromWhereverATrialStands) {
  StudyQueues queues;
  queues.put(study(kA));
  queues.push(kA, TrialId{1});
  queues.push_again(kA, TrialId{2}, 2);
  queues.hold_back(kA, TrialId{3}, 3, SteadyTime::max());
  for (int t : {1, 2, 3}) EXPECT_TRUE(queues.erase(kA, TrialId{t}));
  EXPECT_FALSE(queues.erase(kA, TrialId{1}));
  EXPECT_EQ(queues.waiting(kA), 0u);
  queues.push(kB, TrialId{1});
  EXPECT_THAT(queues.take(kB, 1), IsEmpty()) << "an unknown study has no queue";
}

}  // namespace
}  // namespace fusion
