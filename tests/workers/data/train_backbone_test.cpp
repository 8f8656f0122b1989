#include "workers/data/train_backbone.h"

#include <ATen/core/Tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/workers/data/small_dataset.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::SmallDataset;

class TrainBackboneTest : public ::testing::Test {
 protected:
  BackboneResult train(const BackboneTraining& training, bool force = false) const {
    return train_backbone(Dataset::open(small_.manifest()), 0, training, file_, force);
  }

  SmallDataset small_;
  std::filesystem::path file_ = small_.folder / "backbones/dots.safetensors";
  BackboneTraining training_{.epochs = 2, .batch = 8, .channels = 2, .seed = 4};
};

TEST_F(TrainBackboneTest, KeepsWhatIsUpToDateAndTrainsAgainWhenAnythingChanges) {
  EXPECT_FALSE(train(training_).reused);
  const std::string first = sha256_of_file(file_);
  const BackboneResult kept = train(training_);
  EXPECT_TRUE(kept.reused);
  EXPECT_EQ(sha256_of_file(file_), first);
  EXPECT_FALSE(train(training_, true).reused);
  EXPECT_EQ(sha256_of_file(file_), first) << "the same seed gives the same weights";
  BackboneTraining other = training_;
  other.seed = 5;
  EXPECT_FALSE(train(other).reused);
  EXPECT_NE(sha256_of_file(file_), first);
}

TEST_F(TrainBackboneTest, TrainsADamagedFileAgain) {
  train(training_);
  const std::string first = sha256_of_file(file_);
  std::filesystem::resize_file(file_, 300);
  EXPECT_FALSE(train(training_).reused);
  EXPECT_EQ(sha256_of_file(file_), first);
}

TEST_F(TrainBackboneTest, WritesItsOriginIntoTheMetadata) {
  const BackboneResult result = train(training_);
  const auto metadata = SafetensorsFile::open(file_).metadata();
  EXPECT_EQ(metadata.at("kind"), "lenet");
  EXPECT_EQ(metadata.at("dataset_digest"), Dataset::open(small_.manifest()).manifest().digest);
  EXPECT_EQ(std::stoi(metadata.at("epoch")), result.best_epoch);
  EXPECT_DOUBLE_EQ(std::stod(metadata.at("dev_accuracy")), result.dev_accuracy);
}

TEST_F(TrainBackboneTest, KeepsTheEpochThatWasBestOnDev) {
  training_.epochs = 5;
  std::vector<double> dev;
  const BackboneResult result = train_backbone(Dataset::open(small_.manifest()), 0, training_, file_, false,
                                               [&](std::int64_t, double accuracy) {
                                                 if (accuracy >= 0) dev.push_back(accuracy);
                                               });
  ASSERT_EQ(dev.size(), 5u);
  EXPECT_DOUBLE_EQ(result.dev_accuracy, *std::max_element(dev.begin(), dev.end()));
  EXPECT_DOUBLE_EQ(dev[static_cast<std::size_t>(result.best_epoch - 1)], result.dev_accuracy);
  const ExtractResult extracted = [&] {
    ExtractOptions options;
    options.backbones["waves"] = file_;
    LeNetOptions waves = LeNet::load(file_).options();
    waves.height = 6;
    waves.width = 10;
    LeNet(waves, 1).save(small_.folder / "waves.safetensors");
    options.backbones["waves"] = small_.folder / "waves.safetensors";
    return extract_features(Dataset::open(small_.manifest()), options);
  }();
  EXPECT_DOUBLE_EQ(extracted.manifest.baselines.unimodal.at("dots").at("dev"), result.dev_accuracy);
}

TEST(LeNetForTest, FitsTheReferencesTwoNetworks) {
  EXPECT_EQ(lenet_for({.name = "image", .shape = {1, 28, 28}, .files = {}}, 10, 3), LeNetOptions::image());
  EXPECT_EQ(lenet_for({.name = "audio", .shape = {112, 112}, .files = {}}, 10, 3), LeNetOptions::audio());
  EXPECT_THAT(message_of<ConfigError>([] { lenet_for({.name = "text", .shape = {300}, .files = {}}, 10, 3); }),
              ::testing::AllOf(HasSubstr("\"text\""), HasSubstr("fusion-data import")));
}

TEST(OneCycleTest, IsThatOfPyTorch) {
  // torch.optim.lr_scheduler.OneCycleLR(max_lr=0.1, total_steps=10), PyTorch 1.13
  const std::vector<double> expected{0.004, 0.052, 0.1, 0.09504846320134737, 0.08117456539497631,
                                     0.06112620219362893, 0.03887399780637108, 0.018825834605023693, 0.004951936798652643, 4e-07};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(one_cycle(0.1, static_cast<std::int64_t>(i), 10), expected[i], 1e-6) << "step " << i;
  }
}

}  // namespace
}  // namespace fusion
