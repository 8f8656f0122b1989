#include "space/retraining.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace fusion {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

template <typename T>
T read(const json& document) {
  JsonProblems problems;
  JsonReader reader(document, "retraining.json", problems);
  T value = T::read(reader);
  problems.throw_if_any();
  return value;
}

std::string problems_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(RetrainingOptionsTest, DefaultsAreThePublishedFoundProtocol) {
  const auto options = read<RetrainingOptions>(json::object());
  EXPECT_EQ(options, RetrainingOptions{});
  EXPECT_EQ(options.total_epochs(), 71);
  EXPECT_EQ(options.width, 256);
  EXPECT_EQ(options.restart_epochs, 5);
}

TEST(RetrainingOptionsTest, TemporalHeadsTrainAsTheBertReferenceUnlessToldOtherwise) {
  const auto bert = read<RetrainingOptions>({{"head", "bert"}});
  EXPECT_EQ(bert.optimiser, Optimiser::adamw);
  EXPECT_EQ(bert.schedule, RateSchedule::plateau);
  EXPECT_DOUBLE_EQ(bert.weight_decay, 1e-3);
  EXPECT_EQ(read<RetrainingOptions>({{"head", "bert"}, {"optimiser", "adam"}}).optimiser, Optimiser::adam);
}

TEST(RetrainingOptionsTest, RoundTripsForEveryHead) {
  for (const auto& [head, name] : EnumNames<HeadKind>::kTable) {
    json document = {{"head", name}, {"epochs", 3}, {"finetune", "none"}, {"mmtm_gate", "reference"}};
    if (is_temporal(head)) document.update({{"reduction", "frab"}, {"reduced_width", 64}});
    const auto options = read<RetrainingOptions>(document);
    EXPECT_EQ(read<RetrainingOptions>(options.to_json()), options) << name;
  }
}

TEST(RetrainingOptionsTest, ReportsEveryProblemAtOnce) {
  const std::string said = problems_of([] {
    read<RetrainingOptions>({{"head", "bert"}, {"width", 100}, {"epochs", 0}, {"fusion_epochs", 0}, {"eta_min", 1}, {"heds", 2}});
  });
  EXPECT_THAT(said, HasSubstr("/bert_heads: expected a divisor of the tokens' width, which is 100, got 8"));
  EXPECT_THAT(said, HasSubstr("/epochs: expected at least one epoch"));
  EXPECT_THAT(said, HasSubstr("/eta_min: is larger than eta_max"));
  EXPECT_THAT(said, HasSubstr("heds"));
  EXPECT_THAT(problems_of([] { read<RetrainingOptions>({{"reduction", "frab"}}); }), HasSubstr("/reduction: is for temporal heads"));
  EXPECT_THAT(problems_of([] { read<RetrainingOptions>({{"head", "bart"}}); }),
              AllOf(HasSubstr("/head: expected one of linear, mmtm, bert"), Not(HasSubstr("/bert"))));
  EXPECT_THAT(problems_of([] { read<RetrainingOptions>({{"batch", 16}, {"processes", 9}}); }),
              HasSubstr("/processes: expected at most half as many as rows in a batch, which has 16, got 9"));
}

RetrainingJob job() {
  RetrainingJob job;
  job.retraining = RetrainingId{7};
  job.attempt = 2;
  job.architecture = architecture_from_text("[[3,0,0],[1,2,1]]");
  job.dataset_path = "d/features.json";
  job.dataset_digest = "abc";
  job.options.head = HeadKind::mmtm;
  job.seed = 42;
  job.folder = "artifacts/retraining-7";
  job.lineage = {{"study", {{"id", 1}}}};
  return job;
}

TEST(RetrainingTest, JobsRoundTripAndAreCheckedWhole) {
  EXPECT_EQ(read<RetrainingJob>(job().to_json()), job());
  json broken = job().to_json();
  broken["architecture"] = json::array({json::array()});
  broken["options"]["epochs"] = -1;
  broken["lineage"] = 3;
  const std::string said = problems_of([&] { read<RetrainingJob>(broken); });
  EXPECT_THAT(said, AllOf(HasSubstr("/architecture"), HasSubstr("/options/epochs"), HasSubstr("/lineage")));
}

TEST(RetrainingTest, OutcomesRoundTripAndHaveAScoreOnlyWhenCompleted) {
  RetrainingOutcome outcome;
  outcome.retraining = RetrainingId{7};
  outcome.attempt = 1;
  outcome.score.emplace();
  outcome.score->dev_score = 0.93;
  outcome.score->test_score = 0.92;
  outcome.score->batch = 32;
  outcome.score->evaluation = {{"dev", {{"accuracy", 0.93}}}};
  outcome.score->artifacts.push_back({"model.pt", "a/model.pt", 12, "00"});
  outcome.device = "cpu";
  EXPECT_EQ(read<RetrainingOutcome>(outcome.to_json()), outcome);
  json failed = outcome.to_json();
  failed["outcome"] = "failed";
  EXPECT_THAT(problems_of([&] { read<RetrainingOutcome>(failed); }), HasSubstr("/score: is there if and only if"));
  json escaping = outcome.to_json();
  escaping["score"]["artifacts"][0]["name"] = "../model.pt";
  EXPECT_THAT(problems_of([&] { read<RetrainingOutcome>(escaping); }), HasSubstr("without a folder"));
}

TEST(RetrainingTest, FinalStatesAreLeftByNothing) {
  for (const auto& [from, from_name] : EnumNames<RetrainingState>::kTable) {
    for (const auto& [to, to_name] : EnumNames<RetrainingState>::kTable) {
      if (is_final(from) || from == to) {
        EXPECT_FALSE(can_follow(from, to)) << from_name << " " << to_name;
      }
    }
    EXPECT_EQ(can_follow(from, RetrainingState::cancelled), !is_final(from)) << from_name;
  }
  EXPECT_FALSE(can_follow(RetrainingState::paused, RetrainingState::leased));
}

TEST(RetrainingTest, EpochsAndProgressRoundTrip) {
  const RetrainingEpoch epoch{3, 1, 0.5, 0.6, 0.9, 1e-3, 2.5, 22'000};
  EXPECT_EQ(read<RetrainingEpoch>(epoch.to_json()), epoch);
  const RetrainingProgress progress{3, 71, 320, 55'000, 22'000, 170};
  EXPECT_EQ(read<RetrainingProgress>(progress.to_json()), progress);
}

}  // namespace
}  // namespace fusion
