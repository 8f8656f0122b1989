// The skeleton network against the numbers of the authors' own code.
#include "model/hcn.h"

#include <ATen/ops/cross_entropy_loss.h>

#include "model/device.h"
#include "tests/model/mmtm_cases.h"

namespace fusion {
namespace {

using golden::Case;
using golden::expect_close;

Hcn network_for(const Case& given) {
  const nlohmann::json& config = given.facts.at("config");
  HcnOptions options;
  options.window = config.at("vid_len_skeleton");
  options.classes = config.at("num_outputs");
  options.joints = config.value("joints", options.joints);
  options.dropout = config.at("drpt");
  return Hcn(options, 0);
}

/// Another case of the same folder.
Case neighbour(const Case& given, const std::string& stem) {
  const auto sidecar = given.sidecar.parent_path() / (stem + ".json");
  const nlohmann::json facts = parse_json_file(sidecar);
  return {sidecar, facts, golden::tensors_of(sidecar, facts)};
}

void forward(const Case& given) {
  const Hcn network = network_for(given);
  golden::set_weights(given, network.parameters().named());
  const Hcn::Output out = network.forward(golden::input(given, "in.x"));
  const double tolerance = given.facts.at("tolerance").at("forward");
  for (std::size_t i = 0; i < out.taps.size(); ++i) {
    const std::string name = "tap.out" + std::to_string(i + 1);
    expect_close(out.taps[i], given.tensor(name), {tolerance, 0}, name);
  }
  expect_close(out.logits, given.tensor("out.logits"), {tolerance, 0}, "out.logits");
}

/// Weights and input are those of the case of the same name without "_grad".
void gradient(const Case& given) {
  std::string stem = given.sidecar.stem().string();
  ASSERT_EQ(stem.substr(stem.size() - 5), "_grad");
  const Case weights = neighbour(given, stem.substr(0, stem.size() - 5));
  const Hcn network = network_for(given);
  golden::set_weights(weights, network.parameters().named());
  const at::Tensor x = golden::input(weights, "in.x").set_requires_grad(true);
  const DropoutRows rows;
  const at::Tensor loss = at::cross_entropy_loss(network.forward(x, &rows).logits, given.tensor("in.label"));
  loss.backward();
  const double tolerance = given.facts.at("tolerance").at("gradient");
  expect_close(loss.reshape({1}), given.tensor("out.loss"), {tolerance, 0}, "loss");
  expect_close(x.grad(), given.tensor("grad.x"), {tolerance, 0}, "grad.x");
  const nlohmann::json& order = given.facts.at("gradnorm_order");
  const at::Tensor norms = given.tensor("gradnorm");
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::string name = order[i];
    const at::Tensor got = network.parameters().at(name).grad();
    const double expected = norms[static_cast<std::int64_t>(i)].item<double>();
    const double relative = given.facts.at("tolerance").at("gradnorm_relative");
    EXPECT_NEAR(got.norm().item<double>(), expected, relative * expected) << name;
    if (given.has("grad." + name)) expect_close(got, given.tensor("grad." + name), {tolerance, 0}, "grad." + name);
  }
  EXPECT_EQ(order.size(), network.parameters().size());
}

}  // namespace
}  // namespace fusion

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  fusion::prepare_training_thread();
  fusion::golden::register_cases({{"HCN skeleton network of MFAS/MMTM", fusion::forward}, {"HCN gradient", fusion::gradient}});
  return RUN_ALL_TESTS();
}
