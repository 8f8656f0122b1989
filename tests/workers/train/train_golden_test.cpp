// Training steps, the learning rate and weight sharing against the reference's own numbers.
#include "tests/workers/train/golden_step_model.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty_like.h>

#include <optional>
#include <regex>

#include "model/adam.h"
#include "model/device.h"
#include "model/fusion_network.h"
#include "model/torch_compat.h"
#include "workers/train/schedule.h"
#include "workers/train/weight_bank.h"

namespace fusion {
namespace {

using golden::Case;
using golden::expect_close;
using golden::StepModel;
using golden::StepOptimiser;
using golden::Tolerance;

void train_step(const Case& given) {
  ASSERT_EQ(given.facts.value("dropout", 0.0), 0.0) << "the masks of another generator cannot be drawn here";
  const auto& tolerances = given.facts.at("tolerance");
  const Tolerance exact = Tolerance::read(tolerances.at("logits/loss/grad"));
  const bool multitask = given.facts.at("multitask");
  StepModel model(given);
  StepOptimiser optimiser(given);
  Adam adam(model.parameters(), optimiser.adam);
  const at::Tensor labels = given.tensor("labels");
  const at::Tensor losses = given.tensor("losses");
  const at::Tensor rates = given.tensor("lrs");
  for (int step = 1; step <= given.facts.at("steps").get<int>(); ++step) {
    const std::string name = "step" + std::to_string(step);
    adam.clear_gradients();
    const std::vector<at::Tensor> logits = model.forward();
    at::Tensor loss = at::cross_entropy_loss(logits.front(), labels);
    for (std::size_t m = 1; multitask && m < logits.size(); ++m) loss = loss.add(at::cross_entropy_loss(logits[m], labels));
    const double rate = optimiser.schedule.next();
    EXPECT_NEAR(rate, rates[step - 1].item<double>(), 1e-9) << name;
    loss.backward();
    expect_close(loss, losses[step - 1], exact, name + ".loss");
    if (given.has(name + ".logits")) expect_close(logits.front(), given.tensor(name + ".logits"), exact, name + ".logits");
    for (std::size_t m = 1; m < logits.size(); ++m) {
      const std::string own = name + (m == 1 ? ".audio_logits" : ".image_logits");
      if (given.has(own)) expect_close(logits[m], given.tensor(own), exact, own);
    }
    for (const auto& [tensor_name, tensor] : model.named()) {
      const std::string grad = name + ".grad." + tensor_name;
      if (given.has(grad)) expect_close(tensor.grad(), given.tensor(grad), exact, grad);
    }
    adam.step(rate);
    const std::string after = name + ".after";
    int compared = 0;
    for (const auto& [tensor_name, tensor] : model.named()) {
      const std::string full = after + "." + tensor_name;
      if (!given.has(full)) continue;
      expect_close(tensor, given.tensor(full), Tolerance::read(tolerances.at(after)), full);
      ++compared;
    }
    EXPECT_TRUE(compared > 0 || !tolerances.contains(after)) << after;
  }
}

void lr_schedule(const Case& given) {
  const Tolerance tolerance = Tolerance::read(given.facts.at("tolerance"));
  const auto& defaults = given.facts.at("defaults");
  for (const auto& [name, facts] : given.facts.at("cases").items()) {
    const auto value = [&facts = facts, &defaults](const char* key) {
      return facts.contains(key) ? facts.at(key).get<double>() : defaults.at(key).get<double>();
    };
    CosineSchedule schedule({value("eta_max"), value("eta_min"), static_cast<int>(value("Ti")), static_cast<int>(value("Tm")),
                             RestartRule::reference},
                            facts.at("batches_per_epoch").get<double>());
    const at::Tensor expected = given.tensor(name + ".lr");
    const at::Tensor got = at::empty_like(expected);
    std::vector<std::int64_t> restarts;
    for (std::int64_t step = 0; step < expected.size(0); ++step) {
      got[step].fill_(schedule.next());
      if (schedule.restarted()) restarts.push_back(step);
    }
    expect_close(got, expected, tolerance, name);
    std::vector<std::int64_t> expected_restarts;
    for (const std::int64_t step : given.tensors.at(name + ".restart_after_step").to<std::int64_t>()) {
      if (step >= 0) expected_restarts.push_back(step);  // -1 means none
    }
    EXPECT_EQ(restarts, expected_restarts) << name;
  }
}

void weight_sharing_keys(const Case& given) {
  const std::int64_t c = given.facts.value("channels", 3);
  const TapWidths widths{{c, 2 * c, 4 * c, 8 * c, 16 * c}, {c, 2 * c, 4 * c}};
  FusionOptions options;
  options.width = given.facts.value("inner_representation_size", 16);
  options.classes = given.facts.value("num_outputs", 10);
  WeightBank bank;
  std::uint64_t seed = 0;
  for (const auto& model : given.facts.at("sequence")) {
    FusionNetwork network(architecture_from_triplets(model.at("conf")), widths, options, ++seed);
    std::vector<std::string> keys;
    for (std::size_t i = 0; i < network.architecture().steps.size(); ++i) keys.push_back(WeightBank::key(network, i));
    EXPECT_EQ(keys, model.at("keys_by_layer").get<std::vector<std::string>>());
    EXPECT_EQ(bank.load(network), model.at("loaded_from_store").get<std::vector<std::string>>());
    bank.store(network);
  }
  EXPECT_EQ(bank.keys(), given.facts.at("store_after").get<std::vector<std::string>>());
}

}  // namespace
}  // namespace fusion

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  fusion::prepare_training_thread();
  fusion::golden::register_cases({{"train_step", fusion::train_step},
                                  {"lr_schedule", fusion::lr_schedule},
                                  {"weight_sharing_keys", fusion::weight_sharing_keys}});
  return RUN_ALL_TESTS();
}
