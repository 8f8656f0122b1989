#include "model/mmtnet.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "base/error.h"
#include "base/random.h"
#include "model/initialise.h"
#include "model/mmtnet_trainer.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

MmtNetOptions tiny(MmtNetRule gated_maps, MmtNetRule persons) {
  MmtNetOptions options;
  options.visual = {{1, 1, 1, 1}, 4, 5, ClipPool::repaired};
  options.skeleton.window = 16;
  options.skeleton.classes = 5;
  options.gated_maps = gated_maps;
  options.persons = persons;
  return options;
}
MmtNetOptions repaired() { return tiny(MmtNetRule::repaired, MmtNetRule::repaired); }
MmtNetOptions reference() { return tiny(MmtNetRule::reference, MmtNetRule::reference); }

struct Inputs {
  at::Tensor clip = at::empty({3, 2, 32, 32, 3});
  at::Tensor skeleton = at::empty({3, 3, 16, 25, 2});
  at::Tensor labels = at::zeros({3}, at::kLong);

  Inputs() {
    Rng rng(21);
    fill_normal(clip, 1.0, rng);
    fill_normal(skeleton, 1.0, rng);
    labels[1] = 2;
    labels[2] = 4;
  }
};

void shift(const at::Tensor& parameter) {
  const at::NoGradGuard no_grad;
  parameter.add_(1.0);
}

TEST(MmtNetTest, PassesGatedMapsOnUnlessToldOtherwise) {
  const Inputs in;
  for (const MmtNetRule rule : {MmtNetRule::repaired, MmtNetRule::reference}) {
    MmtNet network(tiny(rule, MmtNetRule::repaired), 1);
    for (const std::size_t module : {0, 1}) {
      const MmtNet::Output before = network.forward(in.clip, in.skeleton, false);
      shift(network.module(module).parameters().at("fc_visual.bias"));
      const MmtNet::Output after = network.forward(in.clip, in.skeleton, false);
      EXPECT_EQ(after.visual.equal(before.visual), rule == MmtNetRule::reference) << name_of(rule) << " module " << module;
      shift(network.module(module).parameters().at("fc_skeleton.bias"));
      EXPECT_FALSE(network.forward(in.clip, in.skeleton, false).skeleton.equal(after.skeleton)) << name_of(rule) << module;
    }
    const MmtNet::Output before = network.forward(in.clip, in.skeleton, false);
    shift(network.module(2).parameters().at("fc_visual.bias"));
    EXPECT_FALSE(network.forward(in.clip, in.skeleton, false).visual.equal(before.visual));
  }
}

TEST(MmtNetTest, GatesPersonsAlikeUnlessToldOtherwise) {
  const Inputs in;
  for (const MmtNetRule rule : {MmtNetRule::repaired, MmtNetRule::reference}) {
    const MmtNet network(tiny(MmtNetRule::repaired, rule), 1);
    const MmtNet::Output out = network.forward(in.clip, in.skeleton, false);
    const MmtNet::Output swapped = network.forward(in.clip, in.skeleton.flip({4}), false);
    EXPECT_EQ(swapped.skeleton.allclose(out.skeleton, 1e-5, 1e-7), rule == MmtNetRule::repaired) << name_of(rule);
  }
}

TEST(MmtNetTest, NamesItsPartsAndTracesThem) {
  MmtNet network(repaired(), 1);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : network.parameters()) names.push_back(name);
  EXPECT_EQ(names.front(), "mmtm0.fc_squeeze.weight");
  EXPECT_EQ(names[18], "visual.cnn.conv1.weight");
  EXPECT_EQ(names.back(), "skeleton.fc8.bias");
  EXPECT_EQ(network.module(1).channels(), (std::vector<std::int64_t>{64, 256}));
  const Inputs in;
  MmtNet::Trace trace;
  const MmtNet::Output out = network.forward(in.clip, in.skeleton, false, nullptr, &trace);
  EXPECT_EQ(trace.visual_maps[3].sizes(), (std::vector<std::int64_t>{3, 128, 2, 1, 1}));
  EXPECT_EQ(trace.skeleton_taps.size(), 8U);
  EXPECT_TRUE(out.prediction().allclose(out.visual.add(out.skeleton).mul(0.5)));
}

TEST(MmtNetTest, RefusesBranchesOfDifferentClasses) {
  MmtNetOptions options = repaired();
  options.skeleton.classes = 6;
  EXPECT_THAT([&] { MmtNet(options, 1); }, ThrowsMessage<ModelError>(HasSubstr("the same classes, got 5 and 6")));
}

std::map<std::string, at::Tensor> copies(const MmtNet& network) {
  std::map<std::string, at::Tensor> all;
  for (const auto& [name, tensor] : network.parameters()) all[name] = tensor.detach().clone();
  return all;
}

/// Names of the parameters that a step moved, by their first part.
std::set<std::string> moved(const MmtNet& network, const std::map<std::string, at::Tensor>& before) {
  std::set<std::string> parts;
  for (const auto& [name, tensor] : network.parameters()) {
    if (!tensor.equal(before.at(name))) parts.insert(name.substr(0, name.find('.')));
  }
  return parts;
}

TEST(MmtNetTrainerTest, MovesOneBranchAndTheModulesInEachStep) {
  using ::testing::ElementsAre;
  const Inputs in;
  for (const MmtNetRule gradients : {MmtNetRule::repaired, MmtNetRule::reference}) {
    MmtNet network(repaired(), 1);
    MmtNetTrainer trainer(network, {.gradients = gradients});
    const MmtNetTrainer::Batch batch{in.clip, in.skeleton, in.labels};
    auto before = copies(network);
    trainer.visual_step(batch, 1e-4);
    EXPECT_THAT(moved(network, before), ElementsAre("mmtm0", "mmtm1", "mmtm2", "visual")) << name_of(gradients);
    before = copies(network);
    trainer.skeleton_step(batch, 1e-4);
    EXPECT_THAT(moved(network, before), ElementsAre("mmtm0", "mmtm1", "mmtm2", "skeleton")) << name_of(gradients);
  }
}

TEST(MmtNetTrainerTest, LeavesAGateThatNoLossReachesAloneUnlessToldOtherwise) {
  const Inputs in;
  for (const MmtNetRule gradients : {MmtNetRule::repaired, MmtNetRule::reference}) {
    MmtNet network(reference(), 1);
    MmtNetTrainer trainer(network, {.gradients = gradients});
    const MmtNetTrainer::Batch batch{in.clip, in.skeleton, in.labels};
    const auto start = copies(network);
    trainer.visual_step(batch, 1e-4);
    const auto before = copies(network);
    trainer.skeleton_step(batch, 1e-4);
    const auto after = copies(network);
    const auto stayed = [&](const std::string& name) { return after.at(name).equal(before.at(name)); };
    EXPECT_EQ(stayed("mmtm2.fc_visual.weight"), gradients == MmtNetRule::repaired) << name_of(gradients);
    for (const std::string name : {"mmtm0.fc_visual.weight", "mmtm1.fc_visual.weight"}) {
      EXPECT_TRUE(after.at(name).equal(start.at(name))) << name;  // no loss ever reaches them
    }
  }
}

/// The gradients of all parameters; undefined ones are left out.
std::map<std::string, at::Tensor> gradients_of(const MmtNet& network) {
  std::map<std::string, at::Tensor> all;
  for (const auto& [name, tensor] : network.parameters()) {
    if (tensor.grad().defined()) all[name] = tensor.grad().clone();
  }
  return all;
}

TEST(MmtNetTrainerTest, GivesBothRulesTheSameGradients) {
  const Inputs in;
  const DropoutRows rows{3, 0};
  const MmtNetTrainer::Batch batch{in.clip, in.skeleton, in.labels, &rows};
  MmtNet plain(reference(), 1), adding(reference(), 1);
  MmtNetTrainer repaired_trainer(plain, {.adam = {.weight_decay = 0}});
  MmtNetTrainer reference_trainer(adding, {.adam = {.weight_decay = 0}, .gradients = MmtNetRule::reference});
  for (const bool visual : {true, false}) {
    for (MmtNetTrainer* const trainer : {&repaired_trainer, &reference_trainer}) {
      visual ? trainer->visual_step(batch, 0) : trainer->skeleton_step(batch, 0);
    }
    const auto few = gradients_of(plain), all = gradients_of(adding);
    const std::string other = visual ? "skeleton." : "visual.";
    for (const auto& [name, gradient] : few) {
      EXPECT_NE(name.rfind(other, 0), 0U) << name << " is not this step's";
      ASSERT_TRUE(all.contains(name)) << name;
      EXPECT_LE(gradient.sub(all.at(name)).norm().item<double>(), 1e-4 * all.at(name).norm().item<double>() + 1e-7) << name;
    }
    EXPECT_EQ(few.contains(visual ? "visual.classifier.bias" : "skeleton.fc8.bias"), true);
    for (const auto& [name, gradient] : all) {
      if (few.contains(name) || name.rfind(other, 0) == 0) continue;
      EXPECT_EQ(gradient.abs().max().item<double>(), 0) << name << ": no loss of this step reaches it";
    }
  }
}

TEST(MmtNetTrainerTest, LowersBothLosses) {
  const Inputs in;
  MmtNet network(repaired(), 1);
  MmtNetTrainer trainer(network);
  const MmtNetTrainer::Batch batch{in.clip, in.skeleton, in.labels};
  const double visual = trainer.visual_step(batch, 1e-3).loss.item<double>();
  const double skeleton = trainer.skeleton_step(batch, 1e-3).loss.item<double>();
  MmtNetTrainer::Step last_visual, last_skeleton;
  for (int step = 0; step < 15; ++step) {
    last_visual = trainer.visual_step(batch, 1e-3);
    last_skeleton = trainer.skeleton_step(batch, 1e-3);
  }
  EXPECT_LT(last_visual.loss.item<double>(), 0.7 * visual);
  EXPECT_LT(last_skeleton.loss.item<double>(), 0.7 * skeleton);
}

}  // namespace
}  // namespace fusion
