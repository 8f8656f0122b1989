#include "model/adam.h"

#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/optim/adam.h>

#include "model/torch_compat.h"

namespace fusion {
namespace {

class AdamTest : public ::testing::TestWithParam<c10::ScalarType> {};

TEST_P(AdamTest, FollowsTheOptimiserOfLibTorch) {
  const at::TensorOptions kind = at::TensorOptions().dtype(GetParam());
  std::vector<at::Tensor> ours, theirs;
  for (const std::int64_t size : {1, 7, 16, 130}) {
    const at::Tensor start = at::rand({size, 3}, kind).sub(0.5);
    ours.push_back(start.clone().set_requires_grad(true));
    theirs.push_back(start.clone().set_requires_grad(true));
  }
  Adam adam(ours, AdamOptions{.weight_decay = 1e-2});
  torch::optim::Adam reference(theirs, torch::optim::AdamOptions(1e-3).weight_decay(1e-2));
  for (int step = 0; step < 50; ++step) {
    const double rate = 1e-3 * (1 + step % 5);
    static_cast<torch::optim::AdamOptions&>(reference.param_groups()[0].options()).lr(rate);
    for (std::size_t i = 0; i < ours.size(); ++i) {
      if (i == 1 && step % 3 == 0) {  // a parameter that had no part in this step
        ours[i].mutable_grad().reset();
        theirs[i].mutable_grad().reset();
        continue;
      }
      const at::Tensor gradient = at::rand(ours[i].sizes(), kind).sub(0.5);
      ours[i].mutable_grad() = gradient;
      theirs[i].mutable_grad() = gradient.clone();
    }
    adam.step(rate);
    reference.step();
  }
  const double tolerance = GetParam() == at::kDouble ? 1e-14 : 2e-6;
  for (std::size_t i = 0; i < ours.size(); ++i) EXPECT_TRUE(ours[i].allclose(theirs[i], tolerance, tolerance)) << i;
}

INSTANTIATE_TEST_SUITE_P(Types, AdamTest, ::testing::Values(at::kFloat, at::kDouble),
                         [](const auto& type) { return std::string(c10::toString(type.param)); });

TEST(AdamTest, LeavesAParameterWithoutGradientAlone) {
  const at::Tensor parameter = at::rand({4}).set_requires_grad(true);
  const at::Tensor before = parameter.detach().clone();
  Adam adam({parameter}, AdamOptions{.weight_decay = 0.1});
  adam.step(1.0);
  EXPECT_TRUE(parameter.equal(before));
  parameter.mutable_grad() = at::zeros({4});
  adam.step(1.0);  // weight decay alone moves it
  EXPECT_FALSE(parameter.equal(before));
  adam.clear_gradients();
  EXPECT_FALSE(parameter.grad().defined());
}

}  // namespace
}  // namespace fusion
