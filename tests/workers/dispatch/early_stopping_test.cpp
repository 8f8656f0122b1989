#include "workers/dispatch/early_stopping.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace fusion {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

EarlyStoppingOptions asha(int reduction = 3, int min_epochs = 1) { return {EarlyStoppingPolicy::asha, reduction, min_epochs}; }

TEST(EarlyStoppingTest, RungsStandBeforeTheLastEpoch) {
  EXPECT_THAT(EarlyStopping(asha(), 27).rungs(), ElementsAre(1, 3, 9));
  EXPECT_THAT(EarlyStopping(asha(), 28).rungs(), ElementsAre(1, 3, 9, 27));
  EXPECT_THAT(EarlyStopping(asha(2, 5), 30).rungs(), ElementsAre(5, 10, 20));
  EXPECT_THAT(EarlyStopping(asha(3, 3), 3).rungs(), IsEmpty());
  EXPECT_THAT(EarlyStopping(asha(1'000, 10'000), 10'000).rungs(), IsEmpty());
  EXPECT_THAT(EarlyStopping(asha(2, 1), 10'000).rungs().size(), 14u);
  EXPECT_THAT(EarlyStopping({}, 27).rungs(), IsEmpty()) << "off by default";
}

TEST(EarlyStoppingTest, TheFirstGoesOnAndAWorseSecondDoesNot) {
  EarlyStopping stopping(asha(), 9);
  EXPECT_FALSE(stopping.report(TrialId{1}, 1, 0.4));
  const auto why = stopping.report(TrialId{2}, 1, 0.3);
  ASSERT_TRUE(why);
  EXPECT_EQ(*why, "its dev score of 0.3000 after epoch 1 is not among the best 1 of 2; the last of these has 0.4000");
  EXPECT_FALSE(stopping.report(TrialId{3}, 1, 0.5)) << "a new best always does";
  EXPECT_FALSE(stopping.report(TrialId{4}, 1, 0.5)) << "as good as the best";
}

TEST(EarlyStoppingTest, OnlyRungsDecide) {
  EarlyStopping stopping(asha(), 9);
  EXPECT_FALSE(stopping.report(TrialId{1}, 1, 0.9));
  EXPECT_FALSE(stopping.report(TrialId{1}, 2, 0.9));
  EXPECT_FALSE(stopping.report(TrialId{2}, 2, 0.1)) << "epoch 2 is no rung";
  EXPECT_FALSE(stopping.report(TrialId{2}, 3, 0.1)) << "the first at rung 3, whatever happened at rung 1";
  EXPECT_TRUE(stopping.report(TrialId{3}, 3, 0.05));
  EXPECT_FALSE(stopping.report(TrialId{3}, 9, 0)) << "the last epoch ends by itself";
}

TEST(EarlyStoppingTest, ATrialCountsOncePerRung) {
  EarlyStopping stopping(asha(2), 9);
  for (int again = 0; again < 5; ++again) EXPECT_FALSE(stopping.report(TrialId{1}, 1, 0.5)) << "a report that came twice";
  EXPECT_TRUE(stopping.report(TrialId{2}, 1, 0.4));
  EXPECT_FALSE(stopping.report(TrialId{2}, 1, 0.6)) << "a second attempt, and a better one";
  EXPECT_TRUE(stopping.report(TrialId{1}, 1, 0.5)) << "one place for two trials";
}

TEST(EarlyStoppingTest, NotingIsReportingWithoutADecision) {
  std::mt19937 random(7);
  EarlyStopping live(asha(), 27);
  std::vector<std::tuple<TrialId, int, double>> history;
  for (int n = 0; n < 300; ++n) {
    const TrialId trial{1 + static_cast<std::int64_t>(random() % 60)};
    const int epoch = 1 + static_cast<int>(random() % 10);
    const double score = static_cast<double>(random() % 100) / 100;
    EarlyStopping restarted(asha(), 27);
    for (const auto& [t, e, s] : history) restarted.note(t, e, s);
    EXPECT_EQ(restarted.report(trial, epoch, score), live.report(trial, epoch, score));
    history.emplace_back(trial, epoch, score);
  }
}

/// The rule in the plainest words.
bool goes_on(const std::vector<double>& before, double score, int reduction) {
  std::vector<double> all = before;
  all.push_back(score);
  const auto places = std::max<std::size_t>(1, all.size() / static_cast<std::size_t>(reduction));
  return static_cast<std::size_t>(std::ranges::count_if(all, [&](double other) { return other > score; })) < places;
}

TEST(EarlyStoppingTest, EveryOrderOfEverySmallRungFollowsTheRule) {
  for (const int reduction : {2, 3, 4}) {
    // Every sequence of seven scores out of four, ties included.
    for (int code = 0; code < 4 * 4 * 4 * 4 * 4 * 4 * 4; ++code) {
      EarlyStopping stopping(asha(reduction), 2);
      std::vector<double> before;
      for (int n = 0, rest = code; n < 7; ++n, rest /= 4) {
        const double score = 0.25 * (rest % 4);
        ASSERT_EQ(!stopping.report(TrialId{n + 1}, 1, score), goes_on(before, score, reduction)) << code << " " << n;
        before.push_back(score);
      }
    }
  }
}

TEST(EarlyStoppingTest, TheBestOfAllAlwaysReachesTheEnd) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    EarlyStopping stopping(asha(), 27);
    std::vector<int> quality(60);
    for (std::size_t n = 0; n < quality.size(); ++n) quality[n] = static_cast<int>(n);
    std::ranges::shuffle(quality, random);
    int trained_to_the_end = 0;
    bool best_did = false;
    for (std::size_t n = 0; n < quality.size(); ++n) {
      bool on = true;
      for (const int epoch : stopping.rungs()) {
        on = on && !stopping.report(TrialId{static_cast<std::int64_t>(n) + 1}, epoch, quality[n] / 100.0);
      }
      trained_to_the_end += on ? 1 : 0;
      if (quality[n] == 59) best_did = on;
    }
    EXPECT_TRUE(best_did);
    EXPECT_LT(trained_to_the_end, 30) << "most are ended early";
  }
}

}  // namespace
}  // namespace fusion
