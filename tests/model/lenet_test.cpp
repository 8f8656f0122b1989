#include "model/lenet.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/digest.h"
#include "base/error.h"
#include "model/tensor_io.h"
#include "model/torch_compat.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

LeNetOptions tiny() {
  LeNetOptions options;
  options.blocks = 2;
  options.channels = 2;
  options.input_channels = 3;
  options.height = 9;
  options.width = 6;
  options.classes = 4;
  return options;
}

TEST(LeNetTest, HasTheReferencesNumberOfParameters) {
  EXPECT_EQ(LeNet(LeNetOptions::image(), 1).parameters().count(), 1057);
  EXPECT_EQ(LeNet(LeNetOptions::audio(), 1).parameters().count(), 14521);
}

TEST(LeNetTest, GivesTapsOfTheWidthsItSaysAndTrains) {
  LeNetOptions options = tiny();
  options.first_tap_after_pool = true;
  const LeNet network(options, 3);
  const BackboneOutput out = network.forward(at::rand({5, 3, 9, 6}), true);
  ASSERT_EQ(out.taps.size(), 2U);
  EXPECT_EQ(out.taps[0].sizes(), (std::vector<std::int64_t>{5, 2}));
  EXPECT_EQ(out.taps[1].sizes(), (std::vector<std::int64_t>{5, 4}));
  EXPECT_EQ(out.logits.sizes(), (std::vector<std::int64_t>{5, 4}));
  at::cross_entropy_loss(out.logits, at::zeros({5}, at::kLong)).backward();
  for (const auto& [name, parameter] : network.parameters().named()) EXPECT_TRUE(parameter.grad().defined()) << name;
  EXPECT_THROW(network.forward(at::rand({5, 1, 9, 6}), false), c10::Error);
}

TEST(LeNetTest, ComesBackFromItsFileUnchanged) {
  const testing::TemporaryFolder folder;
  const auto file = folder / "image.safetensors";
  const LeNet network(tiny(), 3);
  network.forward(at::rand({5, 3, 9, 6}), true);  // so that the running statistics are not the initial ones
  network.save(file, {{"dev_accuracy", "0.5"}});
  const LeNet loaded = LeNet::load(file);
  EXPECT_EQ(loaded.options(), network.options());
  const at::Tensor x = at::rand({2, 3, 9, 6});
  EXPECT_TRUE(loaded.forward(x, false).logits.equal(network.forward(x, false).logits));
  EXPECT_EQ(SafetensorsFile::open(file).metadata().at("dev_accuracy"), "0.5");

  const auto backbone = open_backbone(file, {3, 9, 6});
  EXPECT_EQ(backbone->kind(), "lenet");
  EXPECT_EQ(backbone->digest(), sha256_of_file(file));
  EXPECT_EQ(backbone->taps(), (std::vector<TapSpec>{{"tap0", 2}, {"tap1", 4}}));
  EXPECT_EQ(backbone->classes(), 4);
  const BackboneOutput out = backbone->forward(x);
  EXPECT_FALSE(out.logits.requires_grad());
  EXPECT_TRUE(out.taps[1].allclose(network.forward(x, false).taps[1], 1e-5, 1e-6));
  EXPECT_THAT([&] { open_backbone(file, {1, 28, 28}); },
              ThrowsMessage<ModelError>(HasSubstr("image.safetensors: expected rows of shape [3,9,6], got [1,28,28]")));
}

TEST(LeNetTest, DrawsTheSameWeightsFromTheSameSeed) {
  EXPECT_TRUE(LeNet(tiny(), 3).parameters().snapshot().equal(LeNet(tiny(), 3).parameters().snapshot()));
  EXPECT_FALSE(LeNet(tiny(), 3).parameters().snapshot().equal(LeNet(tiny(), 4).parameters().snapshot()));
}

TEST(LeNetTest, SaysEveryOptionThatIsWrong) {
  LeNetOptions options = tiny();
  options.channels = 0;
  options.classes = -1;
  EXPECT_THAT([&] { LeNet(options, 1); }, ThrowsMessage<ModelError>(::testing::AllOf(HasSubstr("channels: expected 1 to"),
                                                                                     HasSubstr("classes: expected 1 to"))));
  options = tiny();
  options.blocks = 5;
  EXPECT_THAT([&] { LeNet(options, 1); }, ThrowsMessage<ModelError>(HasSubstr("9 x 6 is too small for 5 blocks")));
}

TEST(LeNetTest, RefusesFilesThatHoldSomethingElse) {
  const testing::TemporaryFolder folder;
  const auto file = folder / "other.safetensors";
  write_tensors(file, {{"weight", at::rand({2})}});
  EXPECT_THAT([&] { LeNet::load(file); }, ThrowsMessage<ModelError>(HasSubstr("other.safetensors: expected a backbone")));
  write_tensors(file, {{"conv1.weight", at::rand({2, 3, 5, 4})}}, {{"kind", "lenet"}, {"arch", tiny().to_json().dump()}});
  EXPECT_THAT([&] { LeNet::load(file); },
              ThrowsMessage<ModelError>(::testing::AllOf(
                  HasSubstr("tensor \"conv1.weight\": expected shape [2, 3, 5, 5], got [2, 3, 5, 4]"),
                  HasSubstr("tensor \"classifier.bias\" is missing"))));
  write_tensors(file, {{"weight", at::rand({2})}}, {{"kind", "lenet"}, {"arch", R"({"blocks": 99})"}});
  EXPECT_THAT([&] { LeNet::load(file); }, ThrowsMessage<ConfigError>(HasSubstr("/blocks")));
  std::ofstream(folder / "junk.bin") << "neither of them, and long enough for a header";
  EXPECT_THAT([&] { open_backbone(folder / "junk.bin", {1, 2, 3}); }, ThrowsMessage<DataError>(HasSubstr("junk.bin")));
  EXPECT_THAT([&] { open_backbone(folder / "absent.pt", {1, 2, 3}); }, ThrowsMessage<DataError>(HasSubstr("absent.pt")));
}

TEST(TensorIoTest, KeepsEveryTypeAndLayout) {
  const testing::TemporaryFolder folder;
  const at::Tensor transposed = at::rand({3, 4}).t();
  const at::Tensor half = at::rand({5}).to(at::kHalf);
  const at::Tensor whole = at::zeros({2, 2}, at::kLong).add(7);
  write_tensors(folder / "all.safetensors", {{"t", transposed}, {"h", half}, {"w", whole}});
  const SafetensorsFile file = SafetensorsFile::open(folder / "all.safetensors");
  EXPECT_TRUE(copy_tensor(file.at("t")).equal(transposed));
  EXPECT_TRUE(copy_tensor(file.at("h")).equal(half));
  EXPECT_TRUE(map_tensor(file.at("w")).equal(whole));
}

}  // namespace
}  // namespace fusion
