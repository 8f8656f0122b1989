// extract --keep time: tokens over time beside the pooled taps.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/staged_backbone.h"
#include "tests/workers/data/small_dataset.h"
#include "workers/data/extract.h"
#include "workers/data/features.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::SmallDataset;

class ExtractTimeTest : public ::testing::Test {
 protected:
  ExtractTimeTest() {
    small_.write_backbones();
    testing::edit_manifest(small_.manifest(), [](nlohmann::json& document) { document["modalities"][1]["time_axis"] = -1; });
    options_.keep = TapKeep::time;
  }

  ExtractResult extract() const { return extract_features(Dataset::open(small_.manifest()), options_); }

  SmallDataset small_;
  ExtractOptions options_;
};

TEST_F(ExtractTimeTest, StoresTokensWhoseMeanIsThePooledTap) {
  extract();
  const auto features = FeatureSet::open(small_.manifest());
  const FeatureSplit& dev = features->split("dev");
  EXPECT_EQ(features->time(0, 0), 0);  // nothing is said of the time of "dots"
  EXPECT_FALSE(dev.sequences[0][0].defined());
  EXPECT_EQ(features->time(1, 0), 5);  // 6 x 10, taken behind the pooling
  EXPECT_EQ(features->time(1, 1), 5);
  const Dataset dataset = Dataset::open(small_.manifest());
  const at::NoGradGuard no_grad;
  const BackboneMaps out = open_staged_backbone(small_.folder / "backbones/waves.safetensors", {1, 6, 10})->forward(dataset.batch(1, "dev", 0, 12), false);
  for (std::size_t t = 0; t < 2; ++t) {
    EXPECT_EQ(dev.sequences[1][t].sizes(), (std::vector<std::int64_t>{12, 5, 4 << t}));
    EXPECT_TRUE(dev.sequences[1][t].allclose(out.maps[t].mean(2).transpose(1, 2), 1e-5, 1e-6));
    EXPECT_TRUE(dev.sequences[1][t].mean(1).allclose(dev.taps[1][t], 1e-5, 1e-6));
  }
  EXPECT_TRUE(dev.logits[1].defined());
}

TEST_F(ExtractTimeTest, GivesASearchTheSameTapsWithinRounding) {
  extract();
  const auto with = FeatureSet::open(small_.manifest());
  ExtractOptions pooled;
  pooled.out = small_.folder / "pooled";
  const ExtractResult plain = extract_features(Dataset::open(small_.manifest()), pooled);
  const auto without = FeatureSet::open(plain.file);
  EXPECT_EQ(with->spec().modalities, without->spec().modalities);
  EXPECT_NE(with->spec().digest, without->spec().digest);
  for (std::size_t m = 0; m < 2; ++m) {
    for (std::size_t t = 0; t < 2; ++t) {
      EXPECT_TRUE(with->split("train").taps[m][t].allclose(without->split("train").taps[m][t], 1e-5, 1e-5));
      EXPECT_FALSE(without->split("train").sequences[m][t].defined());
    }
  }
}

TEST_F(ExtractTimeTest, KeepsTheTypeAndTheBytesWhateverTheThreads) {
  options_.dtype = TapType::bf16;
  options_.batch = 7;
  options_.force = true;
  options_.threads = 1;
  const std::string digest = extract().digest;
  EXPECT_EQ(FeatureSet::open(small_.manifest())->split("dev").sequences[1][1].scalar_type(), at::kBFloat16);
  options_.threads = 3;
  EXPECT_EQ(extract().digest, digest);
}

TEST_F(ExtractTimeTest, UsesWholeFilesAgainAndNoneOfOtherOptions) {
  EXPECT_EQ(extract().made, 6);
  EXPECT_EQ(extract().made, 0);
  options_.keep = TapKeep::pooled;
  EXPECT_EQ(extract().made, 6);
}

TEST_F(ExtractTimeTest, SavesAndRestoresRowsWithTheirTokens) {
  const FeatureWriter writer(small_.folder / "rows", false);
  const NamedTensors first{{"a", at::rand({3, 2})}, {"a@time", at::rand({3, 5, 2})}};
  writer.save_rows("train", "waves", "key", 0, first);
  const NamedTensors into{{"a", at::zeros({8, 2})}, {"a@time", at::zeros({8, 5, 2})}};
  EXPECT_EQ(writer.restore_rows("train", "waves", "key", into), 3);
  EXPECT_TRUE(into[1].second.slice(0, 0, 3).equal(first[1].second));
  const NamedTensors longer{{"a", at::zeros({8, 2})}, {"a@time", at::zeros({8, 6, 2})}};
  EXPECT_EQ(writer.restore_rows("train", "waves", "key", longer), 0);
}

TEST_F(ExtractTimeTest, SaysWhereThereIsNoTime) {
  testing::edit_manifest(small_.manifest(), [](nlohmann::json& document) { document["modalities"][1].erase("time_axis"); });
  EXPECT_THAT(message_of<ConfigError>([&] { extract(); }), AllOf(HasSubstr("there is no time to keep"), HasSubstr("\"dots\", \"waves\"")));
}

}  // namespace
}  // namespace fusion
