#include "workers/train/model_cost.h"

#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/lstm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include <nlohmann/json.hpp>

#include "model/fusion_network.h"
#include "model/lenet.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

std::int64_t count(const std::function<void()>& work) {
  const MultiplyAdds products = count_multiply_adds(work);
  EXPECT_TRUE(products.count) << products.reason;
  return products.count.value_or(-1);
}

TEST(ModelCostTest, CountsProductsByTheirShapes) {
  EXPECT_EQ(count([] { at::matmul(at::rand({3, 5}), at::rand({5, 7})); }), 3 * 5 * 7);
  EXPECT_EQ(count([] { at::matmul(at::rand({2, 3, 5}), at::rand({2, 5, 7})); }), 2 * 3 * 5 * 7);
  EXPECT_EQ(count([] { at::matmul(at::rand({3, 5}), at::rand({5})); }), 15);
  EXPECT_EQ(count([] { at::linear(at::rand({2, 4, 5}), at::rand({7, 5}), at::rand({7})); }), 2 * 4 * 5 * 7);
  // Groups: every output reads 6 / 3 channels of 3 x 3.
  EXPECT_EQ(count([] { at::conv2d(at::rand({2, 6, 8, 9}), at::rand({12, 2, 3, 3}), {}, 2, 1, 1, 3); }), 2 * 12 * 4 * 5 * (2 * 3 * 3));
  EXPECT_EQ(count([] { at::conv_transpose2d(at::rand({2, 6, 4, 5}), at::rand({6, 7, 3, 3}), {}, 2); }), 2 * 6 * 4 * 5 * (7 * 3 * 3));
}

TEST(ModelCostTest, CountsRecurrentLayersByTheirProducts) {
  const std::int64_t rows = 2, time = 5, in = 3, hidden = 4;
  const std::vector<at::Tensor> weights{at::rand({4 * hidden, in}), at::rand({4 * hidden, hidden}), at::rand({4 * hidden}), at::rand({4 * hidden})};
  const std::vector<at::Tensor> state{at::zeros({1, rows, hidden}), at::zeros({1, rows, hidden})};
  const at::NoGradGuard no_grad;
  EXPECT_EQ(count([&] { at::lstm(at::rand({rows, time, in}), state, weights, true, 1, 0, false, false, true); }),
            rows * time * 4 * hidden * (in + hidden));
}

TEST(ModelCostTest, AgreesWithTheFormulaOfALeNetAndAFusionNetwork) {
  LeNetOptions options = LeNetOptions::audio(3, 10);
  const LeNet network(options, 1);
  std::int64_t expected = 0, side = 112, inputs = 1;
  for (std::int64_t block = 0; block < 5; ++block, side /= 2) {
    const std::int64_t outputs = 3 << block, kernel = block == 0 ? 5 : 3;
    expected += side * side * outputs * inputs * kernel * kernel;
    inputs = outputs;
  }
  expected += inputs * 10;
  const at::NoGradGuard no_grad;
  EXPECT_EQ(count([&] { network.forward(at::rand({1, 1, 112, 112}), false); }), expected);

  const FusionNetwork fusion(architecture_from_text("[[1,0,0],[0,1,2,\"glu\"]]"), {{3, 6}, {5, 7}}, {16, 10, true, true}, 1);
  EXPECT_EQ(count([&] { fusion.forward({at::rand({1, 11}), at::rand({1, 10})}, {}, false); }), 16 * 11 + 2 * 16 * (10 + 16) + 16 * 10);
}

TEST(ModelCostTest, CountsWhatATorchScriptProgramRan) {
  torch::jit::Module module("Net");
  module.register_parameter("w", at::rand({6, 4}), false);
  module.register_parameter("k", at::rand({4, 4, 3}), false);
  module.define("def forward(self, x, n: int):\n    for i in range(n):\n        x = torch.relu(torch.conv1d(x, self.k, padding=1))\n"
                "    return torch.matmul(x.mean(2), self.w.t())\n");
  for (int run = 0; run < 3; ++run) {
    EXPECT_EQ(count([&] { module.forward({at::rand({1, 4, 10}), 5}); }), 5 * 10 * 4 * 4 * 3 + 24);
    EXPECT_EQ(count([&] { module.forward({at::rand({1, 4, 10}), 2}); }), 2 * 10 * 4 * 4 * 3 + 24);
  }
}

TEST(ModelCostTest, SaysWhyThereIsNoCount) {
  const MultiplyAdds none = count_multiply_adds([] { at::rand({3}).add(1); });
  EXPECT_FALSE(none.count);
  EXPECT_EQ(none.reason, "no operator that multiplies matrices was seen");
  const nlohmann::json cost = cost_of_one_row([] { at::rand({3}).add(1); }, "cpu");
  EXPECT_TRUE(cost.at("multiply_adds").is_null());
  EXPECT_EQ(cost.at("multiply_adds_reason"), none.reason);
}

TEST(ModelCostTest, DescribesOneRow) {
  int runs = 0;
  const nlohmann::json cost = cost_of_one_row([&] { ++runs, at::matmul(at::rand({3, 5}), at::rand({5, 7})); }, "cpu");
  EXPECT_EQ(cost.at("multiply_adds"), 105);
  EXPECT_GT(cost.at("latency_ms").get<double>(), 0);
  EXPECT_EQ(cost.at("device"), "cpu");
  EXPECT_FALSE(cost.contains("multiply_adds_reason"));
  EXPECT_EQ(runs, 1 + 5 + 50);
}

}  // namespace
}  // namespace fusion
