#include "model/sgd.h"

#include <ATen/ops/rand.h>
#include <gtest/gtest.h>
#include <torch/optim/sgd.h>

#include "base/error.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

std::vector<at::Tensor> parameters_like(const std::vector<at::Tensor>& from) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& tensor : from) copies.push_back(tensor.detach().clone().set_requires_grad(true));
  return copies;
}

TEST(SgdTest, FollowsTheOptimiserOfLibTorch) {
  const std::vector<at::Tensor> ours{at::rand({7, 3}).set_requires_grad(true), at::rand({5}).set_requires_grad(true)};
  const std::vector<at::Tensor> theirs = parameters_like(ours);
  Sgd sgd(ours, {.momentum = 0.9, .dampening = 0.9, .weight_decay = 1e-3});
  torch::optim::SGD reference(theirs, torch::optim::SGDOptions(1e-2).momentum(0.9).dampening(0.9).weight_decay(1e-3));
  for (int step = 0; step < 20; ++step) {
    for (std::size_t i = 0; i < ours.size(); ++i) {
      ours[i].mutable_grad() = at::rand(ours[i].sizes()).sub(0.5);
      theirs[i].mutable_grad() = ours[i].grad().clone();
    }
    sgd.step(1e-2);
    reference.step();
  }
  for (std::size_t i = 0; i < ours.size(); ++i) EXPECT_TRUE(ours[i].allclose(theirs[i], 1e-6, 1e-6)) << i;
}

TEST(SgdTest, GoesOnFromItsState) {
  const std::vector<at::Tensor> first{at::rand({4}).set_requires_grad(true)};
  Sgd sgd(first, {.momentum = 0.9, .dampening = 0.5});
  const at::Tensor gradient = at::rand({4});
  first[0].mutable_grad() = gradient;
  sgd.step(0.1);
  const std::vector<at::Tensor> second = parameters_like(first);
  second[0].mutable_grad() = gradient.clone();
  Sgd resumed(second, {.momentum = 0.9, .dampening = 0.5});
  resumed.load_state(sgd.state());
  sgd.step(0.1);
  resumed.step(0.1);
  EXPECT_TRUE(first[0].equal(second[0]));
  EXPECT_THROW(resumed.load_state({{"momentum", at::rand({3})}}), ModelError);
}

}  // namespace
}  // namespace fusion
