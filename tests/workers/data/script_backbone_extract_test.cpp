#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"
#include "tests/workers/data/small_dataset.h"
#include "workers/data/features.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::SmallDataset;

constexpr const char* kMake = R"(
import sys
import torch
from typing import Dict

class Named(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x) -> Dict[str, torch.Tensor]:
        x = self.drop(x)
        return {"mean": x.mean((1, 2, 3)), "columns": x.mean(2).squeeze(1), "map": x.repeat(1, 2, 1, 1),
                "logits": x.flatten(1)[:, :3]}

class Listed(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :2], x * 2

class Broken(torch.nn.Module):
    def forward(self, x):
        return x.view(-1, 7)

for name, network in (("named", Named()), ("listed", Listed()), ("broken", Broken())):
    torch.jit.script(network).save(sys.argv[1] + "/" + name + ".pt")
)";

/// Networks as a user makes them, by Debian's own Python.
class ScriptBackboneExtractTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::system("/usr/bin/python3 -c 'import torch' >/dev/null 2>&1") != 0) {
      GTEST_SKIP() << "python3-torch is not installed: no TorchScript file can be made";
    }
    write_atomically(small_.folder / "make.py", kMake);
    const std::string command = "/usr/bin/python3 " + (small_.folder / "make.py").string() + " " + small_.folder.path().string();
    ASSERT_EQ(std::system(command.c_str()), 0);
    small_.write_backbones();
  }

  ExtractResult extract(const std::string& dots, const std::string& waves) const {
    ExtractOptions options;
    options.threads = 1;
    options.backbones = {{"dots", small_.folder / dots}, {"waves", small_.folder / waves}};
    return extract_features(Dataset::open(small_.manifest()), options);
  }

  SmallDataset small_;
};

TEST_F(ScriptBackboneExtractTest, TakesNamedTapsAndLogitsFromADict) {
  const ExtractResult result = extract("named.pt", "listed.pt");
  const auto features = FeatureSet::open(result.file);
  const ModalitySpec& dots = features->spec().modalities[0];
  EXPECT_EQ(dots.taps, (std::vector<TapSpec>{{"mean", 1}, {"columns", 8}, {"map", 2}}));
  EXPECT_TRUE(dots.has_logits);
  const Dataset dataset = Dataset::open(small_.manifest());
  const at::Tensor x = dataset.batch(0, "train", 0, 40);
  const FeatureSplit& train = features->split("train");
  EXPECT_TRUE(train.taps[0][0].squeeze(1).allclose(x.mean({1, 2, 3}), 1e-5, 1e-6));
  EXPECT_TRUE(train.taps[0][2].select(1, 1).allclose(x.mean({1, 2, 3}), 1e-5, 1e-6));
  EXPECT_TRUE(train.logits[0].allclose(x.flatten(1).slice(1, 0, 3)));
}

TEST_F(ScriptBackboneExtractTest, NumbersTheTapsOfATupleAndHasNoLateFusionWithoutLogits) {
  const ExtractResult result = extract("named.pt", "listed.pt");
  const auto features = FeatureSet::open(result.file);
  const ModalitySpec& waves = features->spec().modalities[1];
  EXPECT_EQ(waves.taps, (std::vector<TapSpec>{{"tap0", 2}, {"tap1", 1}}));
  EXPECT_FALSE(waves.has_logits);
  EXPECT_FALSE(features->split("dev").logits[1].defined());
  EXPECT_TRUE(result.manifest.baselines.sum_logits.empty());
  EXPECT_EQ(result.manifest.baselines.unimodal.size(), 1u);
  const nlohmann::json manifest = parse_json_file(result.file);
  EXPECT_EQ(manifest.at("modalities").at(1).at("backbone").at("kind"), "torchscript");
  EXPECT_EQ(manifest.at("modalities").at(1).at("backbone").at("digest"), sha256_of_file(small_.folder / "listed.pt"));
}

TEST_F(ScriptBackboneExtractTest, SaysWhatANetworkCannotDo) {
  EXPECT_THAT(message_of<ConfigError>([&] { extract("named.pt", "broken.pt"); }), HasSubstr("broken.pt"));
  write_atomically(small_.folder / "text.pt", "not a network");
  EXPECT_THAT(message_of<ConfigError>([&] { extract("text.pt", "listed.pt"); }), HasSubstr("text.pt"));
}

}  // namespace
}  // namespace fusion
