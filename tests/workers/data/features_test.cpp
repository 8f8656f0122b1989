#include "workers/data/features.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "model/tensor_io.h"
#include "tests/workers/data/small_dataset.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::edit_manifest;
using testing::message_of;
using testing::SmallDataset;

/// A small dataset's extracted features, and ways to spoil them.
class FeatureSetTest : public ::testing::Test {
 protected:
  FeatureSetTest() {
    small_.write_backbones();
    manifest_ = extract_features(Dataset::open(small_.manifest()), {}).file;
  }

  std::filesystem::path file_of(const std::string& split, int modality) const {
    const nlohmann::json files = parse_json_file(manifest_).at("files").at(split);
    const nlohmann::json& entry = modality < 0 ? files.at("labels") : files.at("modalities").at(static_cast<std::size_t>(modality));
    return manifest_.parent_path() / entry.at("file").get<std::string>();
  }

  /// Replaces a file and makes the manifest's digests true again, so that only its content can be found fault with.
  void replace(const std::string& split, int modality, const NamedTensors& tensors) {
    const std::filesystem::path file = file_of(split, modality);
    write_tensors(file, tensors);
    sign(split, modality);
  }

  void sign(const std::string& split, int modality) {
    const std::string digest = sha256_of_file(file_of(split, modality));
    edit_manifest(manifest_, [&](nlohmann::json& d) {
      nlohmann::json& files = d["files"][split];
      (modality < 0 ? files["labels"] : files["modalities"][static_cast<std::size_t>(modality)])["sha256"] = digest;
    });
  }

  std::string problems() const {
    return message_of<DataError>([&] { FeatureSet::open(manifest_); });
  }

  SmallDataset small_;
  std::filesystem::path manifest_;
};

TEST_F(FeatureSetTest, OpensByEitherManifestAndHoldsWhatTheSpecSays) {
  const auto set = FeatureSet::open(small_.manifest());
  const DatasetSpec& spec = set->spec();
  EXPECT_EQ(spec.name, "small");
  EXPECT_EQ(spec.rows, (std::map<std::string, std::int64_t>{{"train", 40}, {"dev", 12}, {"test", 10}}));
  ASSERT_EQ(spec.modalities.size(), 2u);
  EXPECT_EQ(spec.modalities[1].taps, (std::vector<TapSpec>{{"tap0", 4}, {"tap1", 8}}));
  const FeatureSplit& dev = set->split("dev");
  EXPECT_EQ(dev.rows, 12);
  EXPECT_EQ(dev.taps[0][1].sizes().vec(), (std::vector<std::int64_t>{12, 8}));
  EXPECT_EQ(dev.logits[1].sizes().vec(), (std::vector<std::int64_t>{12, 3}));
  EXPECT_EQ(dev.labels.data_ptr<std::int64_t>()[2], 42 % 3);
  EXPECT_EQ(FeatureSet::open(manifest_, spec.digest)->spec(), spec);
  EXPECT_FALSE(set->has("validation"));
  EXPECT_THAT(message_of<DataError>([&] { (void)set->split("validation"); }), HasSubstr("no split \"validation\""));
}

TEST_F(FeatureSetTest, RefusesAnotherDigestThanExpected) {
  EXPECT_THAT(message_of<DataError>([&] { FeatureSet::open(manifest_, "abc"); }), HasSubstr("expected abc"));
}

TEST_F(FeatureSetTest, RefusesAnEditedManifest) {
  nlohmann::json document = parse_json_file(manifest_);
  document["dataset_digest"] = "another";
  write_atomically(manifest_, document.dump());
  EXPECT_THAT(problems(), AllOf(HasSubstr("/digest"), HasSubstr("features.json")));
}

TEST_F(FeatureSetTest, NamesEveryMissingAndChangedFileAtOnce) {
  std::filesystem::remove(file_of("dev", 0));
  testing::flip_byte(file_of("train", 1), 900);
  EXPECT_THAT(problems(), AllOf(HasSubstr(file_of("dev", 0).string() + ": is missing"),
                                HasSubstr(file_of("train", 1).string() + ": its SHA-256 is")));
}

TEST_F(FeatureSetTest, FindsAFileThatChangesAfterItWasOpenedOnce) {
  EXPECT_EQ(problems(), "");
  testing::flip_byte(file_of("test", 0), 700);
  EXPECT_THAT(problems(), HasSubstr("its SHA-256 is"));
}

TEST_F(FeatureSetTest, RefusesATruncatedFileEvenIfItsDigestIsRight) {
  const std::filesystem::path file = file_of("train", 0);
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 8);
  sign("train", 0);
  EXPECT_THAT(problems(), AllOf(HasSubstr(file.string()), HasSubstr("truncated")));
}

TEST_F(FeatureSetTest, RefusesFeaturesThatAreNotFinite) {
  at::Tensor tap = at::ones({12, 8});
  tap.data_ptr<float>()[8 * 3 + 2] = std::numeric_limits<float>::infinity();
  replace("dev", 0, {{"tap0", at::ones({12, 4})}, {"tap1", tap}, {"logits", at::ones({12, 3})}});
  EXPECT_THAT(problems(), HasSubstr("tensor \"tap1\": row 3, column 2 is not a finite number"));
}

TEST_F(FeatureSetTest, RefusesAnotherWidthTypeAndRowCount) {
  replace("dev", 0, {{"tap0", at::ones({12, 5})}, {"tap1", at::ones({11, 8})}, {"logits", at::ones({12, 3}).to(c10::kDouble)}});
  EXPECT_THAT(problems(), AllOf(HasSubstr("tensor \"tap0\": expected F32 of shape [12, 4], got F32 of shape [12, 5]"),
                                HasSubstr("tensor \"tap1\": expected F32 of shape [12, 8], got F32 of shape [11, 8]"),
                                HasSubstr("tensor \"logits\": expected F32 of shape [12, 3], got F64")));
}

TEST_F(FeatureSetTest, ReadsAManifestWithoutTypesAsFloat32AndRefusesAnotherTypeThanItSays) {
  edit_manifest(manifest_, [](nlohmann::json& d) {
    for (nlohmann::json& modality : d["modalities"]) modality.erase("dtype");
  });
  EXPECT_EQ(FeatureSet::open(manifest_)->tap_type(0), TapType::f32);
  edit_manifest(manifest_, [](nlohmann::json& d) { d["modalities"][1]["dtype"] = "bf16"; });
  EXPECT_THAT(problems(), HasSubstr("tensor \"tap0\": expected BF16 of shape [40, 4], got F32 of shape [40, 4]"));
  edit_manifest(manifest_, [](nlohmann::json& d) { d["modalities"][1]["dtype"] = "f16"; });
  EXPECT_THAT(problems(), HasSubstr("/modalities/1/dtype: expected one of f32, bf16, got \"f16\""));
}

TEST_F(FeatureSetTest, RefusesAMissingTap) {
  replace("test", 1, {{"tap0", at::ones({10, 4})}, {"logits", at::ones({10, 3})}});
  EXPECT_THAT(problems(), HasSubstr("has no tensor \"tap1\"; there are: logits, tap0"));
}

TEST_F(FeatureSetTest, RefusesLabelsOutOfRange) {
  at::Tensor labels = at::zeros({40}, at::TensorOptions().dtype(c10::kLong));
  labels.data_ptr<std::int64_t>()[7] = -1;
  replace("train", -1, {{"labels", labels}});
  EXPECT_THAT(problems(), HasSubstr("the label of row 7 is -1; expected 0 to 2"));
}

TEST_F(FeatureSetTest, RefusesPathsThatLeaveTheFolder) {
  edit_manifest(manifest_, [](nlohmann::json& d) { d["files"]["dev"]["labels"]["file"] = "../dataset.json"; });
  EXPECT_THAT(problems(), HasSubstr("expected a path below the manifest's folder"));
}

TEST(FeatureSetOpenTest, SaysWhichCommandMakesMissingFeatures) {
  const SmallDataset small;
  EXPECT_THAT(message_of<DataError>([&] { FeatureSet::open(small.manifest()); }), HasSubstr("fusion-data extract"));
}

}  // namespace
}  // namespace fusion
