#include "workers/data/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "tests/workers/data/small_dataset.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::edit_manifest;
using testing::message_of;
using testing::SmallDataset;

std::string problems_of(const SmallDataset& small) {
  return message_of<Error>([&] { Dataset::open(small.manifest()); });
}

TEST(DatasetTest, GivesNormalisedRowsOfASplit) {
  const SmallDataset small;
  const Dataset dataset = Dataset::open(small.manifest());
  const std::vector<std::int64_t> rows{3, 0};
  const at::Tensor dots = dataset.batch(dataset.modality("dots"), "dev", rows);
  ASSERT_EQ(dots.sizes().vec(), (std::vector<std::int64_t>{2, 1, 8, 8}));
  EXPECT_FLOAT_EQ(dots.data_ptr<float>()[5], (static_cast<float>(SmallDataset::dot(43, 5)) - 100.0f) / 50.0f);
  EXPECT_FLOAT_EQ(dots.data_ptr<float>()[64], (static_cast<float>(SmallDataset::dot(40, 0)) - 100.0f) / 50.0f);
  const at::Tensor waves = dataset.batch(dataset.modality("waves"), "test", 4, 7);
  ASSERT_EQ(waves.sizes().vec(), (std::vector<std::int64_t>{3, 1, 6, 10}));
  EXPECT_FLOAT_EQ(waves.data_ptr<float>()[60 + 7], static_cast<float>(SmallDataset::wave(5, 7)) / 2.0f);
  const at::Tensor labels = dataset.labels("dev");
  ASSERT_EQ(labels.size(0), 12);
  EXPECT_EQ(labels.data_ptr<std::int64_t>()[1], 41 % 3);
}

TEST(DatasetTest, RefusesRowsAndSplitsThatAreNotThere) {
  const SmallDataset small;
  const Dataset dataset = Dataset::open(small.manifest());
  EXPECT_THAT(message_of<DataError>([&] { dataset.batch(0, "dev", 10, 13); }), HasSubstr("has 12 rows, none is called 12"));
  EXPECT_THAT(message_of<ConfigError>([&] { dataset.labels("validation"); }), HasSubstr("no split \"validation\""));
  EXPECT_THAT(message_of<ConfigError>([&] { (void)dataset.modality("smell"); }), HasSubstr("there are: dots, waves"));
}

TEST(DatasetTest, SaysEveryProblemOfTheManifestAtOnce) {
  const SmallDataset small;
  edit_manifest(small.manifest(), [](nlohmann::json& d) {
    d["classes"] = 1;
    d["modalities"][0]["shape"] = {1, -8, 8};
    d["modalities"][1]["std"] = 0;
    d["splits"]["dev"]["end"] = 40;
    d["splits"]["extra"] = d["splits"]["dev"];
    d["colour"] = "blue";
  });
  EXPECT_THAT(problems_of(small), AllOf(HasSubstr("/classes"), HasSubstr("/modalities/0/shape"), HasSubstr("/modalities/1/std"),
                                        HasSubstr("/splits/dev/end"), HasSubstr("/splits/extra"), HasSubstr("colour")));
}

TEST(DatasetTest, RefusesAnEditedManifest) {
  const SmallDataset small;
  nlohmann::json document = parse_json_file(small.manifest());
  document["modalities"][0]["mean"] = 101;
  write_atomically(small.manifest(), document.dump());
  EXPECT_THAT(problems_of(small), AllOf(HasSubstr("/digest"), HasSubstr("dataset.json")));
}

TEST(DatasetTest, NamesEveryChangedAndMissingFile) {
  const SmallDataset small;
  testing::flip_byte(small.folder / "dots-all.npy", 500);
  std::filesystem::remove(small.folder / "waves-held.npy");
  std::filesystem::resize_file(small.folder / "labels-all.npy", 150);
  EXPECT_THAT(problems_of(small), AllOf(HasSubstr("dots-all.npy: its SHA-256 is"), HasSubstr("waves-held.npy"),
                                        HasSubstr("labels-all.npy: its SHA-256 is")));
}

TEST(DatasetTest, RefusesATruncatedArrayEvenIfItsDigestIsRight) {
  const SmallDataset small;
  std::filesystem::resize_file(small.folder / "waves-all.npy", 4000);
  small.sign();
  EXPECT_THAT(problems_of(small), AllOf(HasSubstr("waves-all.npy"), HasSubstr("truncated")));
}

TEST(DatasetTest, RefusesWrongShapesTypesAndRowCounts) {
  const SmallDataset small;
  const std::vector<std::uint8_t> bytes(52 * 128, 0);
  write_npy(small.folder / "dots-all.npy", {DType::u8, {52, 8, 9}, bytes.data()});
  write_npy(small.folder / "dots-held.npy", {DType::u8, {9, 8, 8}, bytes.data()});
  write_npy(small.folder / "waves-all.npy", {DType::f16, {52, 60}, bytes.data()});
  small.sign();
  EXPECT_THAT(problems_of(small), AllOf(HasSubstr("dots-all.npy: has the shape [52, 8, 9]"),
                                        HasSubstr("dots-held.npy: has 9 rows, but there are 10 labels"),
                                        HasSubstr("waves-all.npy: element type F16")));
}

TEST(DatasetTest, RefusesValuesThatAreNotFinite) {
  const SmallDataset small;
  std::vector<double> waves(52 * 60, 1.0);
  waves[60 * 17 + 4] = std::numeric_limits<double>::quiet_NaN();
  write_npy(small.folder / "waves-all.npy", {DType::f64, {52, 60}, waves.data()});
  small.sign();
  EXPECT_THAT(problems_of(small), HasSubstr("waves-all.npy: row 17 holds a value that is not a finite number"));
}

TEST(DatasetTest, RefusesLabelsOutOfRangeAndOfOtherTypes) {
  const SmallDataset small;
  std::vector<std::int64_t> labels(52, 0);
  labels[9] = 3;
  write_npy(small.folder / "labels-all.npy", {DType::i64, {52}, labels.data()});
  const std::vector<float> fractions(10, 0.5f);
  write_npy(small.folder / "labels-held.npy", {DType::f32, {10}, fractions.data()});
  small.sign();
  EXPECT_THAT(problems_of(small), AllOf(HasSubstr("the label of row 9 is 3; expected 0 to 2"), HasSubstr("have the type F32")));
}

TEST(DatasetTest, RefusesASplitPastTheEndOfItsArray) {
  const SmallDataset small;
  edit_manifest(small.manifest(), [](nlohmann::json& d) { d["splits"]["test"]["end"] = 11; });
  EXPECT_THAT(problems_of(small), HasSubstr("/splits/test: ends at row 11 of \"held\", which has 10"));
}

}  // namespace
}  // namespace fusion
