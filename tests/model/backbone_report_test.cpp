#include "model/backbone_report.h"

#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include <ATen/ops/rand.h>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/lenet.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;
using Shape = std::vector<std::int64_t>;

const char* const kStaged = R"(
def stages(self) -> List[str]:
    return ["early", "late"]
def stage(self, i: int, x: Tensor) -> Tensor:
    if i == 0:
        return torch.relu(torch.conv2d(x, self.k0, padding=1))
    return torch.max_pool2d(torch.relu(torch.conv2d(x, self.k1, padding=1)), [2, 2])
def classify(self, x: Tensor) -> Tensor:
    return torch.matmul(x.mean([2, 3]), self.w.t())
def forward(self, x: Tensor) -> Dict[str, Tensor]:
    early = self.stage(0, x)
    late = self.stage(1, early)
    return {"early": early, "late": late, "logits": self.classify(late)}
)";

std::filesystem::path save(const std::filesystem::path& file, const std::string& source, bool trainable = true) {
  torch::jit::Module module("Net");
  module.register_parameter("k0", at::rand({4, 1, 3, 3}), false);
  module.register_parameter("k1", at::rand({6, 4, 3, 3}), false);
  module.register_parameter("w", at::rand({3, 6}), false);
  for (const at::Tensor& parameter : module.parameters()) parameter.requires_grad_(trainable);
  module.define(source);
  module.save(file.string());
  return file;
}

TEST(BackboneReportTest, TellsAllOfAStagedNetwork) {
  const testing::TemporaryFolder folder;
  const BackboneReport report = inspect_backbone(save(folder / "net.pt", kStaged), {1, 8, 10}, -1);
  EXPECT_EQ(report.kind, "torchscript");
  ASSERT_EQ(report.taps.size(), 2u);
  EXPECT_EQ(report.taps[0].shape, (Shape{4, 8, 10}));
  EXPECT_EQ(report.taps[1].shape, (Shape{6, 4, 5}));
  EXPECT_EQ(report.taps[1].width, 6);
  EXPECT_EQ(report.taps[0].time, 10);
  EXPECT_EQ(report.taps[1].time, 5);
  EXPECT_EQ(report.classes, 3);
  EXPECT_EQ(report.parameters, 36 + 216 + 18);
  EXPECT_EQ(report.trainable_parameters, 36 + 216 + 18);
  EXPECT_EQ(report.why_not_staged, "");
  EXPECT_THAT(report.problems, IsEmpty());
  const nlohmann::json uses = report.to_json().at("uses");
  for (const char* use : {"search", "linear", "mmtm", "temporal"}) EXPECT_TRUE(uses.at(use).at("can").get<bool>()) << use;
  EXPECT_EQ(uses.at("temporal").at("why"), "taps that keep time: early late");
}

TEST(BackboneReportTest, SaysWhatANetworkCannotBeUsedFor) {
  const testing::TemporaryFolder folder;
  const auto file = save(folder / "net.pt", "def forward(self, x):\n    return (x, x.mean([2, 3]))\n", false);
  const nlohmann::json json = inspect_backbone(file, {2, 4, 4}, -1).to_json();
  EXPECT_EQ(json.at("taps").at(0), (nlohmann::json{{"name", "tap0"}, {"shape", {2, 4, 4}}, {"pooled", {2}}, {"time", 4}}));
  EXPECT_TRUE(json.at("taps").at(1).at("time").is_null());
  EXPECT_TRUE(json.at("logits").is_null());
  EXPECT_EQ(json.at("trainable_parameters"), 0);
  EXPECT_FALSE(json.at("uses").at("mmtm").at("can").get<bool>());
  EXPECT_THAT(json.at("uses").at("mmtm").at("why").get<std::string>(), HasSubstr("stages() -> List[str]"));
  EXPECT_THAT(json.at("uses").at("linear").at("why").get<std::string>(), HasSubstr("none of its parameters can be trained"));
  EXPECT_EQ(json.at("uses").at("temporal").at("why"), "taps that keep time: tap0; without, one step: tap1");
  const auto flat = save(folder / "flat.pt", "def forward(self, x):\n    return x.mean([2, 3])\n");
  EXPECT_FALSE(inspect_backbone(flat, {2, 4, 4}).to_json().at("uses").at("temporal").at("can").get<bool>());
}

TEST(BackboneReportTest, FindsStagesThatAreNotForward) {
  const testing::TemporaryFolder folder;
  const auto why = [&](const std::string& from, const std::string& to) {
    std::string source = kStaged;
    source.replace(source.find(from), from.size(), to);
    const BackboneReport report = inspect_backbone(save(folder / "net.pt", source), {1, 8, 10});
    return report.why_not_staged;
  };
  EXPECT_THAT(why("[\"early\", \"late\"]", "[\"early\", \"last\"]"), HasSubstr("stage 1 is not the tap in this place that forward returns"));
  EXPECT_THAT(why("early = self.stage(0, x)", "early = self.stage(0, x) * 2"), HasSubstr("stage(0, x) does not give forward's \"early\""));
  EXPECT_THAT(why("\"logits\": self.classify(late)", "\"logits\": late.mean([2, 3])"), HasSubstr("classify(x) does not give forward's \"logits\""));
}

TEST(BackboneReportTest, KnowsLeNets) {
  const testing::TemporaryFolder folder;
  LeNetOptions options;
  options.height = 12;
  options.width = 16;
  options.first_tap_after_pool = true;
  const LeNet network(options, 1);
  network.save(folder / "net.safetensors");
  const BackboneReport report = inspect_backbone(folder / "net.safetensors", {1, 12, 16}, -1);
  EXPECT_EQ(report.kind, "lenet");
  EXPECT_EQ(report.taps[0].shape, (Shape{3, 6, 8}));
  EXPECT_EQ(report.taps[1].shape, (Shape{6, 6, 8}));
  EXPECT_EQ(report.taps[2].time, 4);
  EXPECT_EQ(report.parameters, network.parameters().count());
  EXPECT_EQ(report.why_not_staged, "");
}

TEST(BackboneReportTest, RefusesInASentence) {
  const testing::TemporaryFolder folder;
  std::ofstream(folder / "text.pt") << "this is no network";
  EXPECT_THAT([&] { inspect_backbone(folder / "text.pt", {3}); }, ThrowsMessage<DataError>(AllOf(HasSubstr("text.pt"), HasSubstr("a backbone is a TorchScript archive"))));
  EXPECT_THAT([&] { inspect_backbone(folder / "none.pt", {3}); }, ThrowsMessage<DataError>(HasSubstr("none.pt: cannot be opened")));
  const auto file = save(folder / "net.pt", kStaged);
  EXPECT_THAT([&] { inspect_backbone(file, {3, 8, 8}); }, ThrowsMessage<ModelError>(HasSubstr("failed on an input of shape [2, 3, 8, 8]")));
}

}  // namespace
}  // namespace fusion
