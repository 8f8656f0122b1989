#include "model/adam.h"

#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>

#include "base/error.h"
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

TEST_P(AdamTest, FollowsTheDecoupledOptimiserOfLibTorch) {
  const at::TensorOptions kind = at::TensorOptions().dtype(GetParam());
  const at::Tensor ours = at::rand({130, 3}, kind).set_requires_grad(true);
  const at::Tensor theirs = ours.detach().clone().set_requires_grad(true);
  Adam adam({ours}, AdamOptions{.weight_decay = 1e-1, .decoupled = true});
  torch::optim::AdamW reference({theirs}, torch::optim::AdamWOptions(1e-2).weight_decay(1e-1));
  for (int step = 0; step < 50; ++step) {
    ours.mutable_grad() = at::rand(ours.sizes(), kind).sub(0.5);
    theirs.mutable_grad() = ours.grad().clone();
    adam.step(1e-2);
    reference.step();
  }
  const double tolerance = GetParam() == at::kDouble ? 1e-13 : 5e-6;
  EXPECT_TRUE(ours.allclose(theirs, tolerance, tolerance));
}

TEST_P(AdamTest, GoesOnFromItsState) {
  const at::TensorOptions kind = at::TensorOptions().dtype(GetParam());
  const auto copies = [](const std::vector<at::Tensor>& from) {
    std::vector<at::Tensor> made;
    for (const at::Tensor& tensor : from) made.push_back(tensor.detach().clone().set_requires_grad(true));
    return made;
  };
  const std::vector<at::Tensor> first = copies({at::rand({5}, kind), at::rand({2, 2}, kind)});
  Adam adam(first);
  const auto give_gradients = [&](const std::vector<at::Tensor>& to, std::size_t skipped) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i].mutable_grad() = i == skipped ? at::Tensor() : to[i].detach().mul(0.5);
  };
  for (const std::size_t skipped : {2U, 1U, 2U}) {
    give_gradients(first, skipped);
    adam.step(1e-2);
  }
  const std::vector<at::Tensor> second = copies(first);
  Adam resumed(second);
  const NamedTensors state = adam.state();
  resumed.load_state(state);
  for (int step = 0; step < 3; ++step) {
    give_gradients(first, 2);
    give_gradients(second, 2);
    adam.step(1e-2);
    resumed.step(1e-2);
  }
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(first[i].equal(second[i])) << i;
  EXPECT_THROW(resumed.load_state({{"moments", at::zeros({2, 3}, kind)}, state[1]}), ModelError);
  EXPECT_THROW(resumed.load_state({state[0]}), ModelError);
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
