#include "model/script_backbone.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include <fstream>

#include "base/error.h"
#include "model/device.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::filesystem::path save_script(const std::filesystem::path& file, const std::string& forward) {
  torch::jit::Module module("Net");
  module.register_parameter("weight", at::ones({2, 3}), false);
  module.register_attribute("training", c10::BoolType::get(), true);
  module.define(forward);
  module.save(file.string());
  return file;
}

const char* const kDict = R"(
def forward(self, x):
    pooled = x.mean([2, 3])
    return {"early": x, "late": torch.matmul(pooled, self.weight.t()), "logits": pooled * 2.0}
)";

TEST(ScriptBackboneTest, ReadsNamedTapsInTheirOrder) {
  const testing::TemporaryFolder folder;
  const auto file = save_script(folder / "net.pt", kDict);
  const auto backbone = open_backbone(file, {3, 4, 5});
  EXPECT_EQ(backbone->kind(), "torchscript");
  EXPECT_EQ(backbone->taps(), (std::vector<TapSpec>{{"early", 3}, {"late", 2}}));
  EXPECT_EQ(backbone->classes(), 3);
  const at::Tensor x = at::rand({6, 3, 4, 5});
  const BackboneOutput out = backbone->forward(x);
  EXPECT_TRUE(out.taps[0].allclose(x.mean({2, 3})));
  EXPECT_TRUE(out.logits.allclose(x.mean({2, 3}).mul(2)));
  EXPECT_FALSE(out.taps[1].requires_grad());
}

TEST(ScriptBackboneTest, NumbersTheTapsOfATuple) {
  const testing::TemporaryFolder folder;
  const auto file = save_script(folder / "net.pt", "def forward(self, x):\n    return (x.half(), x.flatten(1))\n");
  const auto backbone = open_backbone(file, {3, 2});
  EXPECT_EQ(backbone->taps(), (std::vector<TapSpec>{{"tap0", 3}, {"tap1", 6}}));
  EXPECT_EQ(backbone->classes(), 0);
  EXPECT_EQ(backbone->forward(at::rand({4, 3, 2})).taps[0].scalar_type(), at::kFloat);
}

TEST(ScriptBackboneTest, RunsInEvaluationMode) {
  const testing::TemporaryFolder folder;
  const auto file = save_script(folder / "net.pt", "def forward(self, x):\n    return torch.dropout(x, 0.5, self.training)\n");
  const auto backbone = open_backbone(file, {8});
  const at::Tensor x = at::ones({4, 8});
  EXPECT_TRUE(backbone->forward(x).taps[0].equal(x));
}

TEST(ScriptBackboneTest, SaysWhatIsWrongWithAFile) {
  const testing::TemporaryFolder folder;
  std::ofstream(folder / "cut.pt") << "PK\x03\x04 and then nothing of use";
  EXPECT_THAT([&] { open_backbone(folder / "cut.pt", {3}); },
              ThrowsMessage<ModelError>(HasSubstr("cut.pt: expected a TorchScript archive")));
  const auto whole = save_script(folder / "whole.pt", kDict);
  std::filesystem::resize_file(whole, std::filesystem::file_size(whole) / 2);
  EXPECT_THAT([&] { open_backbone(whole, {3, 4, 5}); },
              ThrowsMessage<ModelError>(HasSubstr("whole.pt: expected a TorchScript archive")));
  const auto number = save_script(folder / "number.pt", "def forward(self, x):\n    return 3\n");
  EXPECT_THAT([&] { open_backbone(number, {3}); },
              ThrowsMessage<ModelError>(AllOf(HasSubstr("number.pt"), HasSubstr("dict of tensors"), HasSubstr("got Int"))));
  const auto reduced = save_script(folder / "reduced.pt", "def forward(self, x):\n    return {\"t\": x.mean([0])}\n");
  EXPECT_THAT([&] { open_backbone(reduced, {3}); },
              ThrowsMessage<ModelError>(AllOf(HasSubstr("reduced.pt"), HasSubstr("\"t\""), HasSubstr("2 rows in front"))));
  const auto fails = save_script(folder / "fails.pt", "def forward(self, x):\n    return x.view([7, 7])\n");
  EXPECT_THAT([&] { open_backbone(fails, {3}); },
              ThrowsMessage<ModelError>(AllOf(HasSubstr("fails.pt: the network failed on an input of shape [2, 3]"))));
}

TEST(DeviceTest, NamesWhatWasAllowed) {
  EXPECT_TRUE(device_from_text("cpu").is_cpu());
  EXPECT_THAT([] { device_from_text("gpu"); },
              ThrowsMessage<ModelError>("device: expected cpu, cuda or cuda:<number>, got \"gpu\""));
  EXPECT_THAT([] { device_from_text("cuda:-1"); }, ThrowsMessage<ModelError>(HasSubstr("got \"cuda:-1\"")));
  EXPECT_THAT([] { device_from_text("cuda:999"); }, ThrowsMessage<ModelError>(HasSubstr("\"cuda:999\" was asked for")));
}

}  // namespace
}  // namespace fusion
