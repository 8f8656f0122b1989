#include "workers/data/import_features.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "tests/workers/data/small_dataset.h"
#include "workers/data/features.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::SmallDataset;

/// Features extracted once, saved as a stranger would have them (.npy for "dots", one .safetensors for "waves"), and a specification.
class ImportTest : public ::testing::Test {
 protected:
  ImportTest() {
    small_.write_backbones();
    extract_features(Dataset::open(small_.manifest()), {});
    extracted_ = FeatureSet::open(small_.manifest());
    std::filesystem::create_directories(here());
    for (const std::string split : {"train", "dev", "test"}) save(split);
    specification_ = nlohmann::json::parse(R"({
      "format": "fusiond-import-1", "name": "mine", "classes": 3,
      "labels": {"train": "train-labels.npy", "dev": "dev-labels.npy", "test": "test-labels.npy"},
      "modalities": [
        {"name": "dots",
         "taps": [{"name": "tap0", "files": {"train": "train-0.npy", "dev": "dev-0.npy", "test": "test-0.npy"}},
                  {"name": "tap1", "files": {"train": "train-1.npy", "dev": "dev-1.npy", "test": "test-1.npy"}}]},
        {"name": "waves",
         "taps": [{"name": "deep", "files": {"train": "train.safetensors:x.1", "dev": "dev.safetensors:x.1", "test": "test.safetensors:x.1"}}],
         "logits": {"train": "train.safetensors:y", "dev": "dev.safetensors:y", "test": "test.safetensors:y"}}]})");
  }

  std::filesystem::path here() const { return small_.folder / "mine"; }

  void save_npy(const std::string& name, const at::Tensor& tensor, DType type) const {
    write_npy(here() / name, {type, tensor.sizes().vec(), tensor.data_ptr()});
  }

  void save(const std::string& split) const {
    const FeatureSplit& from = extracted_->split(split);
    save_npy(split + "-labels.npy", from.labels.to(c10::kInt), DType::i32);
    save_npy(split + "-0.npy", from.taps[0][0], DType::f32);
    save_npy(split + "-1.npy", from.taps[0][1].to(c10::kDouble), DType::f64);
    const at::Tensor deep = from.taps[1][1].contiguous(), scores = from.logits[1].contiguous();
    write_safetensors(here() / (split + ".safetensors"), {{"x.1", {DType::f32, deep.sizes().vec(), deep.data_ptr()}},
                                                          {"y", {DType::f32, scores.sizes().vec(), scores.data_ptr()}}});
  }

  ImportResult import() const {
    write_atomically(here() / "import.json", specification_.dump());
    return import_features(here() / "import.json", small_.folder / "imported");
  }
  std::string problems() const {
    return message_of<Error>([&] { import(); });
  }

  SmallDataset small_;
  std::shared_ptr<const FeatureSet> extracted_;
  nlohmann::json specification_;
};

TEST_F(ImportTest, GivesTheFeaturesThatWereExtracted) {
  const ImportResult result = import();
  const auto imported = FeatureSet::open(result.file, result.digest);
  EXPECT_EQ(imported->spec().modalities[0].taps, extracted_->spec().modalities[0].taps);
  EXPECT_FALSE(imported->spec().modalities[0].has_logits);
  EXPECT_EQ(imported->spec().rows, extracted_->spec().rows);
  for (const std::string split : {"train", "dev", "test"}) {
    const FeatureSplit& a = imported->split(split);
    const FeatureSplit& b = extracted_->split(split);
    EXPECT_TRUE(a.labels.equal(b.labels));
    EXPECT_TRUE(a.taps[0][0].equal(b.taps[0][0]));
    EXPECT_TRUE(a.taps[0][1].equal(b.taps[0][1]));
    EXPECT_TRUE(a.taps[1][0].equal(b.taps[1][1]));
    EXPECT_TRUE(a.logits[1].equal(b.logits[1]));
  }
  EXPECT_EQ(import().digest, result.digest);
}

TEST_F(ImportTest, AveragesWhatStandsBehindTheChannels) {
  for (const std::string split : {"train", "dev", "test"}) {
    const std::int64_t rows = extracted_->split(split).rows;
    save_npy(split + "-0.npy", at::arange(rows * 5 * 6, at::TensorOptions().dtype(c10::kFloat)).view({rows, 5, 2, 3}), DType::f32);
  }
  const auto imported = FeatureSet::open(import().file);
  const at::Tensor tap = imported->split("dev").taps[0][0];
  ASSERT_EQ(tap.sizes().vec(), (std::vector<std::int64_t>{12, 5}));
  EXPECT_FLOAT_EQ(tap.data_ptr<float>()[6], 6 * 6 + 2.5f);
}

TEST_F(ImportTest, SaysEveryProblemOfTheSpecificationAtOnce) {
  specification_["classes"] = 1;
  specification_["modalities"][0]["taps"][1]["name"] = "tap0";
  specification_["modalities"][1]["logits"].erase("test");
  specification_["colour"] = 3;
  EXPECT_THAT(problems(), AllOf(HasSubstr("/classes"), HasSubstr("\"tap0\" stands twice"), HasSubstr("no file for the split \"test\""),
                                HasSubstr("colour")));
}

TEST_F(ImportTest, SaysEveryProblemOfTheFilesAtOnce) {
  std::filesystem::remove(here() / "train-0.npy");
  at::Tensor bad = extracted_->split("dev").taps[0][0].clone();
  bad.data_ptr<float>()[4 * 5] = std::numeric_limits<float>::quiet_NaN();
  save_npy("dev-0.npy", bad, DType::f32);
  save_npy("dev-1.npy", extracted_->split("dev").taps[0][1].slice(0, 0, 11).contiguous(), DType::f32);
  save_npy("test-1.npy", at::zeros({10, 7}), DType::f32);
  save_npy("test-labels.npy", at::full({10}, 3, at::TensorOptions().dtype(c10::kInt)), DType::i32);
  std::filesystem::resize_file(here() / "train.safetensors", 100);
  EXPECT_THAT(problems(), AllOf(HasSubstr("train-0.npy"), HasSubstr("dev-0.npy: row 5 holds a value that is not a finite number"),
                                HasSubstr("dev-1.npy: has 11 rows, but there are 12 labels"), HasSubstr("test-1.npy: has the width 7, train has 8"),
                                HasSubstr("the label of row 0 is 3; expected 0 to 2"), HasSubstr("train.safetensors")));
}

TEST_F(ImportTest, StoresTapsInBfloat16IfAsked) {
  write_atomically(here() / "import.json", specification_.dump());
  const ImportResult result = import_features(here() / "import.json", small_.folder / "imported", TapType::bf16);
  const auto features = FeatureSet::open(result.file, result.digest);
  const FeatureSplit& dev = features->split("dev");
  EXPECT_TRUE(dev.taps[0][1].equal(extracted_->split("dev").taps[0][1].to(c10::kBFloat16)));
  EXPECT_TRUE(dev.taps[1][0].equal(extracted_->split("dev").taps[1][1].to(c10::kBFloat16)));
  EXPECT_TRUE(dev.logits[1].equal(extracted_->split("dev").logits[1]));
}

TEST_F(ImportTest, AsksForATensorsName) {
  specification_["modalities"][1]["taps"][0]["files"]["dev"] = "dev.safetensors";
  specification_["modalities"][0]["taps"][0]["files"]["dev"] = "dev.csv";
  EXPECT_THAT(problems(), AllOf(HasSubstr("holds 2 tensors; name one"), HasSubstr("expected a .npy file")));
}

TEST_F(ImportTest, RefusesLogitsOfAnotherNumberOfClasses) {
  specification_["classes"] = 4;
  EXPECT_THAT(problems(), HasSubstr("has 3 scores a row; expected 4, one per class"));
}

}  // namespace
}  // namespace fusion
