#include "space/architecture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "space/trial.h"
#include "tests/space/spaces.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;

TEST(ArchitectureTest, ReadsAndWritesTheFieldsTriplets) {
  const std::string text = "[[3,0,0],[1,3,0],[1,1,1],[3,3,0]]";
  const Architecture architecture = architecture_from_text(" [[3, 0, 0], [1, 3, 0], [1, 1, 1], [3, 3, 0]] ");
  ASSERT_EQ(architecture.steps.size(), 4u);
  EXPECT_EQ(architecture.steps[2], (FusionStep{{1, 1}, FusionOp::concat_fc, Activation::sigmoid}));
  EXPECT_EQ(canonical_text(architecture), text);
}

TEST(ArchitectureTest, KeepsTheOperationInTheText) {
  Architecture architecture{{{{3, 2}, FusionOp::glu, Activation::identity}}};
  EXPECT_EQ(canonical_text(architecture), "[[3,2,3,\"glu\"]]");
  EXPECT_EQ(architecture_from_text(canonical_text(architecture)), architecture);
  architecture.steps[0].op = FusionOp::concat_fc;
  EXPECT_EQ(canonical_text(architecture), "[[3,2,3]]");
}

TEST(ArchitectureTest, RefusesNonsenseWithASentence) {
  for (const char* text : {"", "{}", "[]", "[[]]", "[[1]]", "[[1,2,4]]", "[[-1,2,0]]", "[[1,2,0],[1,0]]", "[[1,2,0,\"mul\"]]",
                           "[[1.5,2,0]]", "[[\"glu\",1,0]]", "[[1,2,0],3]", "[[99999999999999999999,0,0]]",
                           "[[0,0,0],[0,0,0],[0,0,0],[0,0,0],[0,0,0],[0,0,0],[0,0,0],[0,0,0],[0,0,0]]"}) {
    EXPECT_THROW(architecture_from_text(text), SpaceError) << text;
  }
  EXPECT_THROW(architecture_from_text(std::string(1'000'000, '[') + std::string(1'000'000, ']')), SpaceError);
}

TEST(DatasetSpecTest, NamesTheTapThatDoesNotExist) {
  const DatasetSpec spec = testing::avmnist_spec();
  try {
    spec.check(architecture_from_text("[[4,2,0],[1,3,0]]"));
    FAIL() << "no error";
  } catch (const SpaceError& error) {
    EXPECT_THAT(error.what(), HasSubstr("step 1: modality \"image\" has taps 0 to 2, got 3"));
  }
}

TEST(DatasetSpecTest, LongFormWithNamesRoundTrips) {
  const DatasetSpec spec = testing::avmnist_spec();
  const Architecture architecture = architecture_from_text("[[4,2,0],[1,0,2,\"glu\"]]");
  const auto described = spec.describe(architecture);
  EXPECT_EQ(described["steps"][1]["taps"]["audio"], "tap1");
  EXPECT_EQ(described["steps"][1]["activation"], "leaky_relu");
  EXPECT_EQ(spec.architecture_from_json(described), architecture);
  EXPECT_EQ(spec.architecture_from_json(to_triplets(architecture)), architecture);
  auto wrong = described;
  wrong["steps"][0]["taps"]["audio"] = "tap9";
  wrong["steps"][1]["activation"] = "relux";
  try {
    spec.architecture_from_json(wrong);
    FAIL() << "no error";
  } catch (const SpaceError& error) {
    EXPECT_THAT(error.what(), HasSubstr("tap9"));
    EXPECT_THAT(error.what(), HasSubstr("relux"));
  }
}

TEST(TrialTest, FinalStatesAreFinal) {
  using enum TrialState;
  for (const TrialState from : {completed, failed, cancelled}) {
    for (const TrialState to : {queued, leased, completed, failed, cancelled}) EXPECT_FALSE(can_follow(from, to));
  }
  EXPECT_TRUE(can_follow(queued, leased));
  EXPECT_TRUE(can_follow(leased, queued));
  EXPECT_FALSE(can_follow(queued, failed));
  EXPECT_FALSE(can_follow(leased, leased));
}

TEST(TrialTest, SeedDependsOnArchitectureReplicaAndStudyOnly) {
  const Architecture a = architecture_from_text("[[0,0,0]]"), b = architecture_from_text("[[0,0,1]]");
  EXPECT_EQ(trial_seed(1, a), trial_seed(1, a));
  EXPECT_NE(trial_seed(1, a), trial_seed(2, a));
  EXPECT_NE(trial_seed(1, a), trial_seed(1, b));
  EXPECT_NE(trial_seed(1, a), trial_seed(1, a, 1));
  EXPECT_LT(trial_seed(1, a), std::uint64_t{1} << 53);
}

TEST(TrialTest, TheOrderOfRowsHasOneSeedPerStudy) {
  EXPECT_EQ(order_seed(1), order_seed(1));
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    EXPECT_NE(order_seed(seed), order_seed(seed + 1));
    EXPECT_LT(order_seed(seed), std::uint64_t{1} << 53);
  }
}

}  // namespace
}  // namespace fusion
