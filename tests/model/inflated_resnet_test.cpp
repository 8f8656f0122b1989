#include "model/inflated_resnet.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "model/initialise.h"
#include "model/tensor_io.h"
#include "model/torch_compat.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Shape = std::vector<std::int64_t>;

InflatedResnetOptions tiny(ClipPool pool = ClipPool::repaired) { return {{1, 2, 1, 1}, 4, 5, pool}; }

at::Tensor random(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  const at::Tensor tensor = at::empty(shape);
  fill_normal(tensor, 1.0, rng);
  return tensor;
}

TEST(InflatedResnetTest, GivesMapsOfTheShapesItSays) {
  const InflatedResnet network(tiny(), 1);
  const InflatedResnet::Output out = network.forward(random({2, 3, 64, 48, 3}, 2), false);
  ASSERT_EQ(out.taps.size(), 5U);
  EXPECT_EQ(out.taps[0].sizes(), (Shape{2, 16, 3, 16, 12}));
  EXPECT_EQ(out.taps[1].sizes(), (Shape{2, 32, 3, 8, 6}));
  EXPECT_EQ(out.taps[3].sizes(), (Shape{2, 128, 3, 2, 2}));
  EXPECT_EQ(out.taps[4].sizes(), (Shape{2, 128}));
  EXPECT_EQ(out.logits.sizes(), (Shape{2, 5}));
  EXPECT_EQ(network.channels(3), 128);
  EXPECT_TRUE(network.parameters().contains("cnn.layer2.0.downsample.1.bias"));
  EXPECT_FALSE(network.parameters().contains("cnn.layer2.1.downsample.0.weight"));
}

TEST(InflatedResnetTest, TrainsEveryWeightAndFollowsTheStatistics) {
  const InflatedResnet network(tiny(), 1);
  const at::Tensor before = network.buffers().snapshot();
  at::cross_entropy_loss(network.forward(random({2, 2, 64, 64, 3}, 2), true).logits, at::zeros({2}, at::kLong)).backward();
  for (const auto& [name, parameter] : network.parameters().named()) EXPECT_TRUE(parameter.grad().defined()) << name;
  EXPECT_FALSE(network.buffers().snapshot().equal(before));
  const at::Tensor after = network.buffers().snapshot();
  network.forward(random({2, 2, 64, 64, 3}, 2), false);
  EXPECT_TRUE(network.buffers().snapshot().equal(after));
}

TEST(InflatedResnetTest, StartsWithHesDeviationTimeNotCounted) {
  const InflatedResnet network({{1, 1, 1, 1}, 32, 5, ClipPool::repaired}, 3);
  const at::Tensor& kernel = network.parameters().at("cnn.layer1.0.conv2.weight");  // [32, 32, 3, 3, 3]
  EXPECT_NEAR(kernel.square().mean().sqrt().item<double>(), std::sqrt(2.0 / (9 * 32)), 0.002);
  EXPECT_EQ(network.parameters().at("cnn.bn1.weight").min().item<double>(), 1);
  EXPECT_EQ(network.buffers().at("cnn.bn1.running_var").min().item<double>(), 1);
  EXPECT_EQ(network.parameters().at("cnn.bn1.bias").abs().max().item<double>(), 0);
}

/// The tensors that a network of images of these options would have, random.
NamedTensors image_network(const InflatedResnet& like) {
  NamedTensors tensors;
  std::uint64_t seed = 100;
  for (const FlatTensors* const flat : {&like.parameters(), &like.buffers()}) {
    for (const auto& [name, tensor] : flat->named()) {
      if (name.rfind("cnn.", 0) != 0) continue;
      Shape shape = tensor.sizes().vec();
      if (shape.size() == 5) shape.erase(shape.begin() + 2);
      const at::Tensor drawn = random(shape, ++seed).mul(0.2);
      tensors.emplace_back(name.substr(4), name.ends_with("running_var") ? drawn.abs().add(0.5) : drawn);
    }
  }
  return tensors;
}

TEST(InflatedResnetTest, SeesAStillClipAsTheImageNetworkSeesTheImage) {
  const testing::TemporaryFolder folder;
  InflatedResnet network(tiny(), 1);
  const NamedTensors image = image_network(network);
  write_tensors(folder / "image.safetensors", image);
  const at::Tensor classifier = network.parameters().at("classifier.weight").clone();
  network.inflate(SafetensorsFile::open(folder / "image.safetensors"));
  EXPECT_TRUE(network.parameters().at("classifier.weight").equal(classifier));
  const at::Tensor& kernel = network.parameters().at("cnn.layer3.0.conv2.weight");
  EXPECT_EQ(kernel.select(2, 0).abs().max().item<double>() + kernel.select(2, 2).abs().max().item<double>(), 0);
  for (const auto& [name, tensor] : image) {
    if (name != "layer3.0.conv2.weight") continue;
    EXPECT_TRUE(kernel.select(2, 1).equal(tensor));
  }

  const at::Tensor frame = random({1, 1, 64, 64, 3}, 4);
  const InflatedResnet::Output once = network.forward(frame, false);
  const InflatedResnet::Output still = network.forward(frame.expand({1, 4, 64, 64, 3}), false);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(still.taps[i].allclose(once.taps[i].expand_as(still.taps[i]), 1e-4, 1e-5)) << i;
  EXPECT_TRUE(still.logits.allclose(once.logits, 1e-4, 1e-5));
}

TEST(InflatedResnetTest, RefusesAnotherImageNetworkWithoutChangingAnything) {
  const testing::TemporaryFolder folder;
  InflatedResnet network(tiny(), 1);
  NamedTensors image = image_network(network);
  image[0].second = random({4, 3, 5, 5}, 1);
  image.pop_back();
  write_tensors(folder / "image.safetensors", image);
  const at::Tensor before = network.parameters().snapshot();
  EXPECT_THAT([&] { network.inflate(SafetensorsFile::open(folder / "image.safetensors")); },
              ThrowsMessage<ModelError>(::testing::AllOf(HasSubstr("conv1.weight: expected [4, 3, 7, 7], got [4, 3, 5, 5]"),
                                                         HasSubstr("there is no tensor layer4.0.downsample.1.running_var"))));
  EXPECT_TRUE(network.parameters().snapshot().equal(before));
}

TEST(InflatedResnetTest, PoolsTheWholeMapOrTheReferencesCorner) {
  const InflatedResnet whole(tiny(), 1), corner(tiny(ClipPool::reference), 1);
  const at::Tensor map = random({2, 128, 2, 8, 8}, 5);
  EXPECT_TRUE(whole.pool(map).allclose(map.mean(at::IntArrayRef{2, 3, 4})));
  EXPECT_TRUE(corner.pool(map).allclose(map.narrow(3, 0, 7).narrow(4, 0, 7).mean(at::IntArrayRef{2, 3, 4})));
  const at::Tensor exact = map.narrow(3, 0, 7).narrow(4, 0, 7);
  EXPECT_TRUE(corner.pool(exact).allclose(whole.pool(exact)));
  EXPECT_THAT([&] { corner.pool(map.narrow(4, 0, 6)); }, ThrowsMessage<ModelError>(HasSubstr("7 rows and columns or more")));
}

TEST(InflatedResnetTest, RefusesWhatItCannotBuildOrRead) {
  InflatedResnetOptions options = tiny();
  options.blocks[2] = 0;
  options.classes = 0;
  EXPECT_THAT([&] { InflatedResnet(options, 1); },
              ThrowsMessage<ModelError>(::testing::AllOf(HasSubstr("blocks of stage 3: expected 1 to 100, got 0"), HasSubstr("classes"))));
  const InflatedResnet network(tiny(), 1);
  EXPECT_THAT([&] { network.forward(random({1, 3, 8, 32, 32}, 1), false); },
              ThrowsMessage<ModelError>(HasSubstr("expected a clip [B, T, H, W, 3], got [1, 3, 8, 32, 32]")));
}

}  // namespace
}  // namespace fusion
