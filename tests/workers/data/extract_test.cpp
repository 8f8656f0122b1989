#include "workers/data/extract.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <bit>
#include <limits>

#include "base/error.h"
#include "model/backbone.h"
#include "tests/workers/data/small_dataset.h"
#include "workers/data/features.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::SmallDataset;

/// To nearest, ties to even, by the definition: of the two neighbours the nearer, or the one whose last bit is 0.
std::uint16_t rounded(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto low = static_cast<std::uint16_t>(bits >> 16);
  const std::uint32_t rest = bits & 0xFFFF;
  return static_cast<std::uint16_t>(low + (rest > 0x8000 || (rest == 0x8000 && (low & 1))));
}

class ExtractTest : public ::testing::Test {
 protected:
  ExtractTest() { small_.write_backbones(); }

  ExtractResult extract(const ExtractOptions& options = {}) const { return extract_features(Dataset::open(small_.manifest()), options); }

  SmallDataset small_;
};

TEST_F(ExtractTest, StoresWhatTheBackboneGivesInEvaluationMode) {
  extract();
  const Dataset dataset = Dataset::open(small_.manifest());
  const auto features = FeatureSet::open(small_.manifest());
  for (std::size_t m = 0; m < 2; ++m) {
    const ModalityManifest& modality = dataset.manifest().modalities[m];
    const auto backbone = open_backbone(small_.folder / ("backbones/" + modality.name + ".safetensors"), modality.shape);
    const BackboneOutput expected = backbone->forward(dataset.batch(m, "dev", 0, 12));
    for (std::size_t t = 0; t < 2; ++t) EXPECT_TRUE(features->split("dev").taps[m][t].allclose(expected.taps[t], 1e-5, 1e-6));
    EXPECT_TRUE(features->split("dev").logits[m].allclose(expected.logits, 1e-5, 1e-6));
  }
}

TEST_F(ExtractTest, TwiceGivesTheSameDigestAndMakesNothingTheSecondTime) {
  const ExtractResult first = extract();
  const ExtractResult second = extract();
  EXPECT_EQ(first.made, 6);
  EXPECT_EQ(second.made, 0);
  EXPECT_EQ(second.reused, 6);
  EXPECT_EQ(second.digest, first.digest);
  ExtractOptions again;
  again.force = true;
  const ExtractResult third = extract(again);
  EXPECT_EQ(third.made, 6);
  EXPECT_EQ(third.digest, first.digest);
}

TEST_F(ExtractTest, GivesTheSameBytesWhateverTheNumberOfThreads) {
  for (const TapType type : {TapType::f32, TapType::bf16}) {
    ExtractOptions options;
    options.dtype = type;
    options.batch = 7;
    options.threads = 1;
    options.force = true;
    const std::string digest = extract(options).digest;
    for (const int threads : {2, 3, 9}) {
      options.threads = threads;
      EXPECT_EQ(extract(options).digest, digest);
    }
  }
}

TEST_F(ExtractTest, TellsHowFarItIsOverAllFiles) {
  std::vector<ExtractProgress> told;
  extract_features(Dataset::open(small_.manifest()), {}, [&](const ExtractProgress& at) { told.push_back(at); });
  ASSERT_GE(told.size(), 6u);
  for (std::size_t i = 1; i < told.size(); ++i) EXPECT_GE(told[i].share, told[i - 1].share);
  EXPECT_EQ(told.back().done, 2 * 62);
  EXPECT_EQ(told.back().rows, 2 * 62);
  EXPECT_DOUBLE_EQ(told.back().share, 1);
  EXPECT_EQ(told.back().modality + " " + told.back().split, "waves train");
  told.clear();
  extract_features(Dataset::open(small_.manifest()), {}, [&](const ExtractProgress& at) { told.push_back(at); });
  EXPECT_TRUE(told.empty());
}

TEST_F(ExtractTest, MakesADamagedFileAgainThatNoManifestNames) {
  const ExtractResult first = extract();
  const std::filesystem::path file = first.file.parent_path() / first.manifest.files.at("dev").second[0].file;
  testing::flip_byte(file, static_cast<std::streamoff>(std::filesystem::file_size(file)) - 3);
  std::filesystem::remove(first.file);
  const ExtractResult second = extract();
  EXPECT_EQ(second.made, 1);
  EXPECT_EQ(second.digest, first.digest);
}

TEST_F(ExtractTest, StoresTapsInBfloat16RoundedToNearestEvenAndLogitsAsTheyAre) {
  const ExtractResult full = extract();
  const auto expected = FeatureSet::open(full.file);
  EXPECT_EQ(expected->tap_type(1), TapType::f32);
  ExtractOptions options;
  options.dtype = TapType::bf16;
  const ExtractResult half = extract(options);
  EXPECT_EQ(half.made, 6);
  EXPECT_NE(half.digest, full.digest);
  const auto features = FeatureSet::open(half.file, half.digest);
  EXPECT_EQ(features->tap_type(1), TapType::bf16);
  for (const std::string split : {"train", "dev", "test"}) {
    for (std::size_t m = 0; m < 2; ++m) {
      EXPECT_TRUE(features->split(split).logits[m].equal(expected->split(split).logits[m]));
      for (std::size_t i = 0; i < 2; ++i) {
        const at::Tensor& tap = features->split(split).taps[m][i];
        const at::Tensor& of = expected->split(split).taps[m][i];
        ASSERT_EQ(tap.scalar_type(), c10::kBFloat16);
        for (std::int64_t k = 0; k < tap.numel(); ++k) {
          EXPECT_EQ(static_cast<const std::uint16_t*>(tap.data_ptr())[k], rounded(of.data_ptr<float>()[k]));
        }
      }
    }
  }
  EXPECT_EQ(half.manifest.baselines.to_json(), full.manifest.baselines.to_json());
  EXPECT_EQ(extract(options).made, 0);
}

TEST(FeatureWriterTest, RoundsTiesToEvenAndRefusesWhatBfloat16CannotHold) {
  const auto stored = [](std::vector<float> values) {
    const at::Tensor tap = at::from_blob(values.data(), {static_cast<std::int64_t>(values.size()), 1}, c10::kFloat).clone();
    return as_stored({{"tap0", tap}, {"logits", tap}}, TapType::bf16);
  };
  const std::vector<float> values{1.0F + 0x1p-8F, 1.0F + 3 * 0x1p-8F, 1.0F + 0x1.002p-8F, -3.14159265F, 0x1p-130F, -0.0F};
  const NamedTensors tensors = stored(values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(static_cast<const std::uint16_t*>(tensors[0].second.data_ptr())[i], rounded(values[i])) << values[i];
  }
  EXPECT_EQ(tensors[1].second.scalar_type(), c10::kFloat);
  const testing::TemporaryFolder folder;
  const FeatureWriter writer(folder / "features", false);
  const auto problem = [&](float value) {
    return message_of<DataError>([&] { writer.write("dev", "dots", "key", stored({1.0F, value})); });
  };
  const std::string expected = "dev features of dots: \"tap0\": row 1 is not finite, or too large for bf16";
  EXPECT_EQ(problem(std::numeric_limits<float>::quiet_NaN()), expected);
  EXPECT_EQ(problem(std::numeric_limits<float>::max()), expected);
  EXPECT_FALSE(std::filesystem::exists(folder / "features"));
}

TEST_F(ExtractTest, MakesADamagedFileAgain) {
  const ExtractResult first = extract();
  const std::string name = first.manifest.files.at("dev").second[0].file;
  testing::flip_byte(first.file.parent_path() / name, 900);
  const ExtractResult second = extract();
  EXPECT_EQ(second.made, 1);
  EXPECT_EQ(second.digest, first.digest);
}

TEST_F(ExtractTest, MakesFeaturesAgainWhenABackboneChanges) {
  const ExtractResult first = extract();
  LeNetOptions dots = LeNet::load(small_.folder / "backbones/dots.safetensors").options();
  LeNet(dots, 77).save(small_.folder / "backbones/dots.safetensors");
  const ExtractResult second = extract();
  EXPECT_EQ(second.made, 3);
  EXPECT_EQ(second.reused, 3);
  EXPECT_NE(second.digest, first.digest);
}

TEST_F(ExtractTest, StoresTheBaselinesInTheManifest) {
  const nlohmann::json baselines = parse_json_file(extract().file).at("baselines");
  const auto features = FeatureSet::open(small_.manifest());
  const FeatureSplit& test = features->split("test");
  const auto accuracy = [&](const at::Tensor& scores) {
    return static_cast<double>(scores.argmax(1).eq(test.labels).sum().item<std::int64_t>()) / 10.0;
  };
  EXPECT_DOUBLE_EQ(baselines.at("unimodal").at("waves").at("test"), accuracy(test.logits[1]));
  EXPECT_DOUBLE_EQ(baselines.at("late_fusion").at("sum_logits").at("test"), accuracy(test.logits[0].add(test.logits[1])));
  EXPECT_DOUBLE_EQ(baselines.at("late_fusion").at("sum_log_softmax").at("test"),
                   accuracy(test.logits[0].log_softmax(1).add(test.logits[1].log_softmax(1))));
}

TEST_F(ExtractTest, NamesEveryMissingAndWrongBackboneAtOnce) {
  std::filesystem::remove(small_.folder / "backbones/dots.safetensors");
  LeNetOptions other = LeNet::load(small_.folder / "backbones/waves.safetensors").options();
  other.height = 7;
  LeNet(other, 1).save(small_.folder / "backbones/waves.safetensors");
  ExtractOptions options;
  options.backbones["smell"] = "smell.pt";
  EXPECT_THAT(message_of<ConfigError>([&] { extract(options); }),
              AllOf(HasSubstr("fusion-data train-backbones"), HasSubstr("backbones/dots.safetensors"),
                    HasSubstr("waves.safetensors: expected rows of shape [1,7,10], got [1,6,10]"), HasSubstr("no modality \"smell\"")));
}

TEST_F(ExtractTest, RefusesABackboneOfAnotherNumberOfClasses) {
  LeNetOptions other = LeNet::load(small_.folder / "backbones/waves.safetensors").options();
  other.classes = 5;
  LeNet(other, 1).save(small_.folder / "backbones/waves.safetensors");
  EXPECT_THAT(message_of<ConfigError>([&] { extract(); }), HasSubstr("gives 5 class scores; \"small\" has 3 classes"));
}

TEST_F(ExtractTest, RefusesABackboneWhoseFeaturesAreNotFinite) {
  LeNet network = LeNet::load(small_.folder / "backbones/dots.safetensors");
  network.buffers().at("bn2.running_mean").fill_(std::numeric_limits<float>::quiet_NaN());
  network.save(small_.folder / "backbones/dots.safetensors");
  EXPECT_THAT(message_of<DataError>([&] { extract(); }), AllOf(HasSubstr("dots"), HasSubstr("not finite")));
}

}  // namespace
}  // namespace fusion
