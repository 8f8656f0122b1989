#include "model/hcn.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "model/initialise.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Shape = std::vector<std::int64_t>;

at::Tensor skeletons(std::int64_t rows, std::int64_t window, std::int64_t persons = 2) {
  Rng rng(17);
  const at::Tensor x = at::empty({rows, 3, window, 25, persons});
  fill_normal(x, 1.0, rng);
  return x;
}

TEST(HcnTest, GivesMapsOfTheShapesItSays) {
  for (const std::int64_t w : {8, 16, 24, 32, 48}) {
    HcnOptions options;
    options.window = w;
    options.classes = 7;
    const Hcn network(options, 1);
    const Hcn::Output out = network.forward(skeletons(1, w));
    const std::int64_t five = w == 8 ? 2 : w / 8;
    const std::vector<Shape> expected{{1, 64, w, 25},         {1, 25, w, w},          {1, 32, w / 2, w / 2},
                                      {1, 128, w / 4, w / 4}, {1, 128, five, five}, {1, 256, five / 2, five / 2},
                                      {1, network.flat_width()}, {1, 512}};
    ASSERT_EQ(out.taps.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(out.taps[i].sizes(), expected[i]) << "window " << w << " tap " << i;
    EXPECT_EQ(out.logits.sizes(), (Shape{1, 7}));
  }
}

TEST(HcnTest, TreatsPersonsAlike) {
  HcnOptions options;
  options.window = 16;
  const Hcn network(options, 1);
  const at::Tensor x = skeletons(2, 16);
  const at::Tensor logits = network.forward(x).logits;
  EXPECT_TRUE(network.forward(x.flip({4})).logits.equal(logits));
  EXPECT_TRUE(network.forward(at::cat({x, x}, 4)).logits.allclose(logits));  // four persons, two of them twice
  EXPECT_FALSE(network.forward(x.narrow(4, 0, 1)).logits.allclose(logits));
}

TEST(HcnTest, DropsWholeChannelsTheSameWayHoweverRowsAreCut) {
  HcnOptions options;
  options.window = 16;
  const Hcn network(options, 1);
  const at::Tensor x = skeletons(6, 16);
  const DropoutRows all{9, 100}, second{9, 104}, other{10, 100};
  const Hcn::Persons whole = network.look(x, &all);
  const Hcn::Persons part = network.look(x.narrow(0, 4, 2), &second);
  EXPECT_TRUE(whole.conv5.narrow(1, 4, 2).allclose(part.conv5));
  EXPECT_FALSE(network.look(x, &other).conv5.allclose(whole.conv5));
  EXPECT_TRUE(network.forward(x, &all).logits.narrow(0, 4, 2).allclose(network.forward(x.narrow(0, 4, 2), &second).logits, 1e-4, 1e-5));

  const at::Tensor dropped = whole.conv4.flatten(3).abs().amax(3).eq(0).to(at::kDouble);  // [P, B, 128]
  EXPECT_NEAR(dropped.mean().item<double>(), options.dropout, 0.06);                     // of 1536 channels
  EXPECT_EQ(network.look(x).conv4.flatten(3).abs().amax(3).eq(0).sum().item<std::int64_t>(), 0);
  EXPECT_FALSE(dropped[0].equal(dropped[1]));  // each person's own
}

TEST(HcnTest, StartsAsTheReferenceDoes) {
  HcnOptions options;
  options.window = 16;
  const Hcn network(options, 4);
  const auto largest = [&](const char* name) { return network.parameters().at(name).abs().max().item<double>(); };
  const auto expect_bound = [&](const char* name, double fans) {
    EXPECT_LE(largest(name), std::sqrt(6 / fans)) << name;
    EXPECT_GT(largest(name), 0.9 * std::sqrt(6 / fans)) << name;
  };
  expect_bound("conv1.0.weight", 3 + 64);
  expect_bound("conv2m.weight", 3 * 64 + 3 * 16);
  expect_bound("conv6.0.weight", 9 * 128 + 9 * 256);
  expect_bound("fc8.weight", 512 + 60);
  EXPECT_EQ(largest("fc7.0.bias"), 0);
  EXPECT_TRUE(Hcn(options, 4).parameters().snapshot().equal(network.parameters().snapshot()));
}

TEST(HcnTest, GivesEveryWeightAGradient) {
  HcnOptions options;
  options.window = 8;
  const Hcn network(options, 2);
  const DropoutRows rows;
  at::cross_entropy_loss(network.forward(skeletons(3, 8), &rows).logits, at::zeros({3}, at::kLong)).backward();
  for (const auto& [name, parameter] : network.parameters().named()) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    EXPECT_GT(parameter.grad().norm().item<double>(), 0) << name;
  }
}

TEST(HcnTest, RefusesWhatItCannotBuildOrRead) {
  const auto building = [](HcnOptions options) {
    return [options] { Hcn(options, 1); };
  };
  HcnOptions options;
  options.window = 12;
  EXPECT_THAT(building(options), ThrowsMessage<ModelError>(HasSubstr("window: expected 8 or 16 to 4096, got 12")));
  options = {};
  options.dropout = 1;
  EXPECT_THAT(building(options), ThrowsMessage<ModelError>(HasSubstr("dropout: expected a number in [0, 1)")));
  const Hcn network(HcnOptions{}, 1);
  EXPECT_THAT([&] { network.forward(skeletons(1, 16)); },
              ThrowsMessage<ModelError>(HasSubstr("expected skeletons [B, 3, 32, 25, persons], got [1, 3, 16, 25, 2]")));
}

}  // namespace
}  // namespace fusion
