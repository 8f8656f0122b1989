#include "model/retrained_model.h"

#include <ATen/ops/dot.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/Context.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include "base/error.h"
#include "model/lenet.h"
#include "model/time_axis.h"
#include "model/torch_compat.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

/// Two small LeNets: "sound" [1, 8, 12], whose last axis is time, of three stages and "image" [1, 8, 8] of two.
class RetrainedModelTest : public ::testing::Test {
 protected:
  RetrainedModelTest() {
    LeNetOptions sound;
    sound.blocks = 3;
    sound.channels = 2;
    sound.height = 8;
    sound.width = 12;
    sound.classes = 3;
    sound.first_tap_after_pool = true;
    LeNetOptions image = sound;
    image.blocks = 2;
    image.width = 8;
    image.first_tap_after_pool = false;
    LeNet(sound, 1).save(folder / "sound.safetensors");
    LeNet(image, 2).save(folder / "image.safetensors");
    options.width = 8;
    options.bert_heads = 2;
  }

  std::vector<ModelModality> modalities(at::ScalarType type) const {
    std::vector<ModelModality> both(2);
    both[0].name = "sound";
    both[0].row_shape = {1, 8, 12};
    both[0].time_axis = -1;
    both[0].tap_widths = {2, 4, 8};
    both[1].name = "image";
    both[1].row_shape = {1, 8, 8};
    both[1].tap_widths = {2, 4};
    for (ModelModality& m : both) {
      m.backbone = open_staged_backbone(folder / (m.name + ".safetensors"), m.row_shape, at::TensorOptions().dtype(type));
    }
    return both;
  }

  RetrainedModel model(const char* architecture, at::ScalarType type = at::kDouble) const {
    return RetrainedModel(architecture_from_text(architecture), options, 3, modalities(type), 7, at::TensorOptions().dtype(type));
  }

  static std::vector<at::Tensor> inputs(at::ScalarType type = at::kDouble) {
    at::manual_seed(3);
    return {at::randn({4, 1, 8, 12}, type), at::randn({4, 1, 8, 8}, type)};
  }

  static at::Tensor labels() {
    static std::int64_t values[] = {0, 2, 1, 1};
    return at::from_blob(values, {4}, at::kLong);
  }

  /// Per tensor: the gradient along a direction against central differences, in double.
  void expect_right_gradients(const char* architecture) {
    RetrainedModel net = model(architecture);
    net.set_backbones_trainable(true);
    const std::vector<at::Tensor> x = inputs();
    const ModelPass pass{true, true, 11, 40};
    const auto loss = [&] { return net.forward(x, pass).loss(labels(), true); };
    loss().backward();
    for (const auto& [name, tensor] : net.parameters()) {
      at::Tensor direction = at::randn(tensor.sizes(), at::kDouble);
      direction = direction.div(direction.norm());
      const double along = tensor.grad().defined() ? at::dot(tensor.grad().flatten(), direction.flatten()).item<double>() : 0;
      const at::NoGradGuard no_grad;
      constexpr double kStep = 1e-6;
      tensor.add_(direction, kStep);
      const double above = loss().item<double>();
      tensor.add_(direction, -2 * kStep);
      const double below = loss().item<double>();
      tensor.add_(direction, kStep);
      EXPECT_NEAR(along, (above - below) / (2 * kStep), 1e-7 + 1e-5 * std::abs(along)) << name;
    }
  }

  testing::TemporaryFolder folder;
  RetrainingOptions options;
};

TEST_F(RetrainedModelTest, HasRightGradientsWithALinearHead) { expect_right_gradients("[[2,1,0],[0,1,1]]"); }

TEST_F(RetrainedModelTest, HasRightGradientsWithGatedStreams) {
  options.head = HeadKind::mmtm;
  expect_right_gradients("[[1,0,0],[0,1,2]]");
}

TEST_F(RetrainedModelTest, HasRightGradientsWithTemporalHeads) {
  for (const HeadKind head : {HeadKind::bert, HeadKind::mean, HeadKind::lstm, HeadKind::concatenation, HeadKind::nonlocal}) {
    SCOPED_TRACE(std::string(name_of(head)));
    options.head = head;
    expect_right_gradients("[[1,1,1],[0,1,2]]");
  }
}

TEST_F(RetrainedModelTest, GivesTheSameFromInputsAndFromTheirTaps) {
  const RetrainedModel net = model("[[2,1,0],[0,1,1]]");
  const std::vector<at::Tensor> x = inputs();
  const ModelOutput whole = net.forward(x, {});
  std::vector<std::vector<at::Tensor>> taps(2);
  std::vector<at::Tensor> logits;
  for (std::size_t m = 0; m < 2; ++m) {
    const BackboneMaps out = net.modalities()[m].backbone->forward(x[m], false);
    for (const at::Tensor& map : out.maps) taps[m].push_back(pool_tap(map));
    logits.push_back(out.logits);
  }
  EXPECT_TRUE(net.forward_taps(taps, logits, {}).scores(true).equal(whole.scores(true)));
}

TEST_F(RetrainedModelTest, GivesTheSameFromInputsAndFromTheirTokens) {
  for (const HeadKind head : {HeadKind::bert, HeadKind::mean, HeadKind::lstm, HeadKind::concatenation, HeadKind::nonlocal}) {
    SCOPED_TRACE(std::string(name_of(head)));
    options.head = head;
    const RetrainedModel net = model("[[2,1,0],[0,0,2]]");
    EXPECT_EQ(net.times(), (std::vector<std::vector<std::int64_t>>{{6, 0, 3}, {0, 0}}));
    EXPECT_EQ(net.tokens(), 3);  // tap 0 of sound has 6, which are averaged
    const std::vector<at::Tensor> x = inputs();
    std::vector<std::vector<at::Tensor>> taps(2);
    std::vector<at::Tensor> logits;
    for (std::size_t m = 0; m < 2; ++m) {
      const BackboneMaps out = net.modalities()[m].backbone->forward(x[m], false);
      for (const at::Tensor& map : out.maps) taps[m].push_back(m == 0 ? tokens_of(map, 3) : pool_tap(map));
      logits.push_back(out.logits);
    }
    taps[0][1] = at::Tensor();  // no step reads it
    for (const ModelPass& pass : {ModelPass{}, ModelPass{true, false, 11, 40}}) {
      EXPECT_TRUE(net.forward_taps(taps, logits, pass).scores(true).allclose(net.forward(x, pass).scores(true), 1e-9, 1e-12));
    }
  }
}

TEST_F(RetrainedModelTest, DoesNotGateStoredTaps) {
  options.head = HeadKind::mmtm;
  const RetrainedModel net = model("[[0,0,0]]");
  EXPECT_THAT([&] { (void)net.forward_taps({}, {}, {}); }, ThrowsMessage<ModelError>(HasSubstr("scales the backbones' maps")));
}

TEST_F(RetrainedModelTest, LetsGatedMapsFlowOn) {
  options.head = HeadKind::mmtm;
  options.mmtm_gate = GateForm::reference;
  RetrainedModel net = model("[[0,0,0]]");
  const std::vector<at::Tensor> x = inputs();
  const at::Tensor before = net.forward(x, {}).logits[0];
  {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : net.fusion_parameters()) {
      if (name == "mmtm0.fc_visual.bias") tensor.fill_(30.0);  // sigmoid: 1, the map passes unchanged
      if (name == "mmtm0.fc_visual.weight") tensor.zero_();
    }
  }
  const at::Tensor open = net.forward(x, {}).logits[0];
  EXPECT_FALSE(open.allclose(before));
  EXPECT_TRUE(open.allclose(net.modalities()[0].backbone->forward(x[0], false).logits));
}

TEST_F(RetrainedModelTest, GivesEveryTensorANameOfItsOwn) {
  options.head = HeadKind::bert;
  const RetrainedModel net = model("[[1,1,1]]");
  std::set<std::string> names;
  for (const auto& [name, tensor] : net.tensors()) EXPECT_TRUE(names.insert(name).second) << name;
  EXPECT_TRUE(names.contains("fusion.layer0.linear.weight"));
  EXPECT_TRUE(names.contains("backbone.sound.bn3.running_var"));
  EXPECT_FALSE(names.contains("fusion.classifier.weight"));
  EXPECT_EQ(net.tokens(), 6);  // tap 1 of sound: 12 wide, pooled once
}

TEST_F(RetrainedModelTest, AsksForATimeAxis) {
  options.head = HeadKind::bert;
  std::vector<ModelModality> without = modalities(at::kFloat);
  without[0].time_axis.reset();
  EXPECT_THAT([&] { RetrainedModel(architecture_from_text("[[1,1,1]]"), options, 3, std::move(without), 7); },
              ThrowsMessage<ModelError>(HasSubstr("declare time_axis")));
}

TEST(MmtmPlanTest, OrdersPlacesByTheirTapsAndGatesWhatHasNotFlownOn) {
  const auto places = plan_mmtm(architecture_from_text("[[3,0,0],[1,2,1],[1,2,0]]"));
  ASSERT_EQ(places.size(), 3U);
  EXPECT_EQ(places[0], (MmtmPlace{1, {1, 2}, {true, true}}));
  EXPECT_EQ(places[1], (MmtmPlace{2, {1, 2}, {true, true}}));   // at the same maps: one after the other
  EXPECT_EQ(places[2], (MmtmPlace{0, {3, 0}, {true, false}}));  // map 0 of the second was read by stage 1 already
}

TEST(TimeAxisTest, IsDeclaredOrFollowsFromTheNumberOfAxes) {
  const at::Tensor image = at::ones({2, 3, 4, 5}), sequence = at::ones({2, 3, 7}), video = at::ones({2, 3, 7, 4, 5});
  EXPECT_EQ(time_axis_of(image, std::nullopt), std::nullopt);
  EXPECT_EQ(time_axis_of(image, -1), 3);
  EXPECT_EQ(time_axis_of(sequence, std::nullopt), 2);
  EXPECT_EQ(time_axis_of(video, std::nullopt), 2);
  EXPECT_EQ(time_axis_of(video, 0), std::nullopt);
  EXPECT_THAT([&] { (void)time_axis_of(image, 5); }, ThrowsMessage<ModelError>(HasSubstr("time_axis 5")));
}

TEST(TimeAxisTest, AveragesOverSpaceAndOverNeighbouringSteps) {
  const at::Tensor map = at::randn({2, 3, 4, 6});
  const at::Tensor tokens = tokens_of(map, 3);  // [2, 6, 3]
  EXPECT_TRUE(tokens.allclose(map.mean(2).transpose(1, 2)));
  EXPECT_TRUE(with_length(tokens, 3).allclose(tokens.view({2, 3, 2, 3}).mean(2)));
  EXPECT_TRUE(with_length(tokens_of(map, std::nullopt), 4).allclose(map.mean({2, 3}).unsqueeze(1).expand({2, 4, 3})));
}

std::filesystem::path save_script(const std::filesystem::path& file, const std::string& source) {
  torch::jit::Module module("Net");
  module.register_parameter("weight", at::ones({1}), false);
  module.register_attribute("training", c10::BoolType::get(), true);
  module.define(source);
  module.save(file.string());
  return file;
}

const char* const kStaged = R"(
def stages(self) -> List[str]:
    return ["early", "late"]
def stage(self, i: int, x: Tensor) -> Tensor:
    if i == 0:
        return x * self.weight
    return torch.cat([x, x * self.weight], 1)
def classify(self, x: Tensor) -> Tensor:
    return x.mean([2, 3])
def forward(self, x: Tensor) -> Dict[str, Tensor]:
    early = self.stage(0, x)
    late = self.stage(1, early)
    return {"early": early, "late": late, "logits": self.classify(late)}
)";

TEST(StagedScriptTest, RunsStageByStage) {
  const testing::TemporaryFolder folder;
  const auto backbone = open_staged_backbone(save_script(folder / "net.pt", kStaged), {3, 4, 5});
  EXPECT_EQ(backbone->why_not_staged(), "");
  const at::Tensor x = at::randn({2, 3, 4, 5});
  const BackboneMaps whole = backbone->forward(x, true);
  const at::Tensor late = backbone->stage(1, backbone->stage(0, x, true), true);
  EXPECT_TRUE(late.equal(whole.maps[1]));
  EXPECT_TRUE(backbone->classify(late, true).equal(whole.logits));
  backbone->set_trainable(true);
  backbone->forward(x, true).logits.sum().backward();
  EXPECT_TRUE(backbone->parameters().front().second.grad().defined());
}

TEST(StagedScriptTest, SaysWhatIsMissing) {
  const testing::TemporaryFolder folder;
  const auto file = save_script(folder / "plain.pt", "def forward(self, x):\n    return (x, x * 2)\n");
  const auto backbone = open_staged_backbone(file, {3, 4, 5});
  EXPECT_THAT(backbone->why_not_staged(), AllOf(HasSubstr("plain.pt"), HasSubstr("stage(i: int, x: Tensor)")));
  std::string other = kStaged;
  other.replace(other.find("\"early\", \"late\"]"), 16, "\"late\", \"early\"]");
  const auto swapped = open_staged_backbone(save_script(folder / "swapped.pt", other), {3, 4, 5});
  EXPECT_THAT(swapped->why_not_staged(), HasSubstr("stage 0 is not the tap"));
}

TEST(StagedScriptTest, RefusesTapsThatChangeTheirWidthBetweenBatches) {
  const testing::TemporaryFolder folder;
  const auto file = save_script(folder / "moody.pt", "def forward(self, x):\n    return (x, x.flatten(1).mm(x.flatten(1).t()))\n");
  const auto backbone = open_staged_backbone(file, {3, 4, 5});  // its second tap is as wide as the batch is long
  const at::Tensor as_opened = at::ones({2, 3, 4, 5}), longer = at::ones({5, 3, 4, 5});
  EXPECT_NO_THROW(backbone->forward(as_opened, false));
  try {
    backbone->forward(longer, false);
    FAIL() << "no error";
  } catch (const ModelError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("moody.pt"), HasSubstr("other taps than for its first input")));
  }
}

}  // namespace
}  // namespace fusion
