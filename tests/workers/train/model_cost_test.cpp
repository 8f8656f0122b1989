#include "workers/train/model_cost.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/addmv.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/lstm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include <nlohmann/json.hpp>

#include "model/autocast.h"
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

TEST(ModelCostTest, CountsEveryFormOfAProduct) {
  const at::Tensor a = at::rand({3, 5}), b = at::rand({5, 7}), bias = at::rand({3, 7});
  EXPECT_EQ(count([&] { at::addmm(bias, a, b); }), 105);
  EXPECT_EQ(count([&] { bias.addmm_(a, b); }), 105);
  at::Tensor out = at::rand({3, 7});
  EXPECT_EQ(count([&] { at::addmm_out(out, bias, a, b); }), 105);
  EXPECT_EQ(count([&] { at::mm_out(out, a, b); }), 105);
  EXPECT_EQ(count([&] { at::baddbmm(bias, a.unsqueeze(0), b.unsqueeze(0)); }), 105);
  EXPECT_EQ(count([&] { at::addmv(at::rand({3}), a, at::rand({5})); }), 15);
  EXPECT_EQ(count([&] { at::einsum("ij,jk->ik", {a, b}); }), 105);
}

/// Under autocast an operator casts its inputs and is called again.
TEST(ModelCostTest, CountsTheSameUnderAutocast) {
  const at::NoGradGuard no_grad;
  const at::Tensor a = at::rand({3, 5}), b = at::rand({5, 7}), bias = at::rand({3, 7}), image = at::rand({2, 6, 8, 9}),
                   kernel = at::rand({12, 2, 3, 3});
  const std::vector<std::pair<std::function<void()>, std::int64_t>> works{
      {[&] { at::mm(a, b); }, 105},
      {[&] { at::addmm(bias, a, b); }, 105},
      {[&] { at::bmm(a.unsqueeze(0), b.unsqueeze(0)); }, 105},
      {[&] { at::baddbmm(bias, a.unsqueeze(0), b.unsqueeze(0)); }, 105},
      {[&] { at::linear(a, b.t(), at::rand({7})); }, 105},
      {[&] { at::matmul(a, b); }, 105},
      {[&] { at::conv2d(image, kernel, {}, 2, 1, 1, 3); }, 2 * 12 * 4 * 5 * (2 * 3 * 3)},
  };
  for (std::size_t i = 0; i < works.size(); ++i) {
    const auto mixed = [&] {
      const Autocast autocast(at::kCPU, true);
      works[i].first();
    };
    EXPECT_EQ(count(mixed), works[i].second) << i;
  }
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

/// Old traces hold a convolution that calls the newer one, and both are called again under autocast.
TEST(ModelCostTest, CountsTracedConvolutionsOnce) {
  torch::jit::Module module("Net");
  module.register_parameter("w", at::rand({6, 4}), false);
  module.register_parameter("k", at::rand({4, 4, 3}), false);
  const std::string common = "torch._convolution(x, self.k, None, [1], [1], [1], ";
  module.define("def old(self, x):\n    return " + common + "False, [0], 1, False, False, False)\n"
                "def transposed(self, x):\n    return " + common + "True, [0], 1, False, False, False, True)\n"
                "def forward(self, x):\n    y = self.old(x) + self.old(self.transposed(x))\n"
                "    return {\"a\": y, \"b\": torch.addmm(torch.zeros([1, 6]), y.mean(2), self.w.t())}\n");
  for (const bool mixed : {false, true}) {
    const auto run = [&] {
      const at::NoGradGuard no_grad;
      const Autocast autocast(at::kCPU, mixed);
      module.forward({at::rand({1, 4, 10})});
    };
    EXPECT_EQ(count(run), 3 * 10 * 4 * 4 * 3 + 24) << mixed;
  }
}

TEST(ModelCostTest, ReadsNothingOfTheStackBelowAnOperatorsOwnValues) {
  torch::jit::Module module("Net");
  module.define("def forward(self, x, y):\n    return torch.mm(x, y)\n");
  torch::jit::Stack stack{at::rand({2, 2}), module._ivalue(), at::rand({3, 5}), at::rand({5, 7})};
  EXPECT_EQ(count([&] { module.get_method("forward").function().run(stack); }), 105);
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
