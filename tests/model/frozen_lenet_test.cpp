#include "model/frozen_lenet.h"

#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>

#include "base/error.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

/// Weights and statistics that are not the initial ones.
LeNet trained(const LeNetOptions& options) {
  LeNet network(options, 3);
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : network.parameters().named()) tensor.add_(at::randn(tensor.sizes()), 0.1);
  for (const auto& [name, tensor] : network.buffers().named()) tensor.add_(at::rand(tensor.sizes()), 0.3);
  return network;
}

std::vector<LeNetOptions> shapes() {
  std::vector<LeNetOptions> all{LeNetOptions::image(), LeNetOptions::audio(), LeNetOptions::image(5)};
  LeNetOptions odd;
  odd.blocks = 2;
  odd.channels = 7;
  odd.input_channels = 3;
  odd.height = 9;
  odd.width = 6;
  odd.classes = 4;
  all.push_back(odd);
  odd.channels = 2;
  odd.first_tap_after_pool = true;
  all.push_back(odd);
  odd.blocks = 1;
  all.push_back(odd);
  odd.first_tap_after_pool = false;
  odd.height = odd.width = 1;
  all.push_back(odd);
  return all;
}

TEST(FrozenLeNetTest, EqualsTheNetworkInEvaluationModeForEveryShape) {
  for (const LeNetOptions& options : shapes()) {
    const at::NoGradGuard no_grad;
    const LeNet network = trained(options);
    const FrozenLeNet frozen(network);
    const at::Tensor x = at::randn({19, options.input_channels, options.height, options.width});
    for (int again = 0; again < 2; ++again) {
      const BackboneOutput expected = network.forward(x, false), got = frozen.forward(x);
      ASSERT_EQ(got.taps.size(), expected.taps.size());
      for (std::size_t i = 0; i < got.taps.size(); ++i) {
        EXPECT_TRUE(got.taps[i].allclose(expected.taps[i], 1e-5, 1e-5)) << options.to_json().dump() << " tap " << i;
      }
      EXPECT_TRUE(got.logits.allclose(expected.logits, 1e-5, 1e-5)) << options.to_json().dump();
    }
  }
}

TEST(FrozenLeNetTest, GivesARowTheSameBitsInEveryBatch) {
  const FrozenLeNet frozen(trained(LeNetOptions::image()));
  const at::Tensor x = at::randn({40, 1, 28, 28});
  const BackboneOutput all = frozen.forward(x), some = frozen.forward(x.narrow(0, 7, 18));
  for (std::size_t i = 0; i < all.taps.size(); ++i) EXPECT_TRUE(all.taps[i].narrow(0, 7, 18).equal(some.taps[i]));
  EXPECT_TRUE(all.logits.narrow(0, 7, 18).equal(some.logits));
}

TEST(FrozenLeNetTest, GivesTheSameBitsWithEveryVectorOfThisProcessor) {
  for (const LeNetOptions& options : shapes()) {
    const LeNet network = trained(options);
    const at::Tensor x = at::randn({17, options.input_channels, options.height, options.width});
    const BackboneOutput expected = FrozenLeNet(network).forward(x);
    for (const int vector : {4, 8, 16}) {
      std::optional<FrozenLeNet> frozen;
      try {
        frozen.emplace(network, vector);
      } catch (const ModelError&) {
        continue;  // not this processor's
      }
      const BackboneOutput got = frozen->forward(x);
      for (std::size_t i = 0; i < got.taps.size(); ++i) EXPECT_TRUE(got.taps[i].equal(expected.taps[i])) << vector;
      EXPECT_TRUE(got.logits.equal(expected.logits)) << vector;
    }
  }
  EXPECT_THROW(FrozenLeNet(trained(LeNetOptions::image()), 5), ModelError);
}

TEST(FrozenLeNetTest, LetsNoNanPassAsANumber) {
  LeNet network = trained(LeNetOptions::image());
  network.buffers().at("bn2.running_mean").fill_(std::numeric_limits<float>::quiet_NaN());
  const BackboneOutput out = FrozenLeNet(network).forward(at::randn({3, 1, 28, 28}));
  EXPECT_TRUE(out.taps[0].isfinite().all().item<bool>());
  EXPECT_TRUE(out.taps[1].isnan().all().item<bool>());
  EXPECT_TRUE(out.taps[2].isnan().all().item<bool>());
}

TEST(FrozenLeNetTest, RefusesAnotherShape) {
  EXPECT_THROW(FrozenLeNet(trained(LeNetOptions::image())).forward(at::randn({3, 1, 28, 27})), c10::Error);
}

}  // namespace
}  // namespace fusion
