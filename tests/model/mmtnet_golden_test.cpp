// The published NTU network, whole, and one batch of its training against the numbers of the authors' own code. The weights are filled
// by rule: 50 million of them, so this takes 16 s of one core and 1.7 GB.
#include "model/mmtnet.h"

#include <algorithm>

#include "model/device.h"
#include "model/mmtnet_trainer.h"
#include "tests/model/mmtm_cases.h"

namespace fusion {
namespace {

using golden::Case;

/// Measures of how far a tensor is off, relative to what was expected; zeros must be met exactly.
double relative(double off, double expected) { return off == 0 ? 0 : off / expected; }
double off_by_max(const at::Tensor& got, const at::Tensor& expected) {
  return relative(got.detach().sub(expected).abs().max().item<double>(), expected.abs().max().item<double>());
}
double off_by_norm(const at::Tensor& got, const at::Tensor& expected) {
  return relative(got.detach().sub(expected).norm().item<double>(), expected.norm().item<double>());
}

/// NaN fails, as does a shape that differs.
void expect_off(double (*measure)(const at::Tensor&, const at::Tensor&), const at::Tensor& got, const Case& given,
                const std::string& name, double tolerance) {
  const at::Tensor expected = given.tensor(name);
  ASSERT_TRUE(got.defined()) << name;
  ASSERT_EQ(got.sizes(), expected.sizes()) << name;
  const double off = measure(got, expected);
  testing::Test::RecordProperty(name, std::to_string(off));
  EXPECT_LE(off, tolerance) << name;
}

MmtNet network_for(const Case& given) {
  const nlohmann::json& config = given.facts.at("config");
  MmtNetOptions options = MmtNetOptions::reference();
  options.visual.classes = options.skeleton.classes = config.at("num_outputs");
  options.skeleton.window = config.at("vid_len").at(1);
  options.skeleton.dropout = config.value("drpt", options.skeleton.dropout);
  MmtNet network(options, 0);
  golden::set_weights(given, network.parameters());
  golden::set_weights(given, network.buffers());
  return network;
}

void evaluation(const Case& given) {
  const MmtNet network = network_for(given);
  const at::NoGradGuard no_grad;
  MmtNet::Trace trace;
  const MmtNet::Output out = network.forward(golden::input(given, "rgb"), golden::input(given, "skeleton"), false, nullptr, &trace);
  const double tolerance = given.facts.at("tolerance").at("forward_relative_to_max");
  const auto expect = [&](const at::Tensor& got, const std::string& name) { expect_off(off_by_max, got, given, name, tolerance); };
  expect(out.visual, "out.visual");
  expect(out.skeleton, "out.skeleton");
  expect(out.prediction(), "out.pred");
  const char* const maps[] = {"mean.fm1", "mean.fm2_gated", "mean.fm3_gated", "mean.final_fm_gated"};
  for (std::size_t i = 0; i < 4; ++i) expect(trace.visual_maps[i].mean(at::IntArrayRef{2, 3, 4}), maps[i]);
  expect(trace.pooled, "tap.vis_pooled");
  const char* const taps[] = {"out1", "out2", "out3", "out4", "out5_max", "out6_max", "out7_gated", "out8_gated"};
  for (std::size_t i = 0; i < 8; ++i) expect(trace.skeleton_taps[i], std::string("tap.") + taps[i]);
}

/// The gradients of all parameters after step `prefix`, against their norms and the ones that are stored.
void expect_gradients(const Case& given, const MmtNet& network, const std::string& prefix, const nlohmann::json& tolerance) {
  std::map<std::string, at::Tensor> parameters;
  for (const auto& [name, tensor] : network.parameters()) parameters[name] = tensor;
  const at::Tensor norms = given.tensor(prefix + "gradnorm");
  const nlohmann::json& order = given.facts.at("gradnorm_order");
  ASSERT_EQ(order.size(), parameters.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::string name = order[i];
    const at::Tensor gradient = parameters.at(name).grad();
    const double expected = norms[static_cast<std::int64_t>(i)].item<double>();
    ASSERT_EQ(gradient.defined(), expected != -1) << prefix << name;
    if (!gradient.defined()) continue;
    EXPECT_NEAR(gradient.norm().item<double>(), expected, tolerance.at("gradnorm").get<double>() * expected) << prefix << name;
    if (!given.has(prefix + "grad." + name)) continue;
    std::string own = "grad_" + name;  // a tolerance of its own: grad_mmtm2_fc_squeeze_bias
    std::replace(own.begin(), own.end(), '.', '_');
    expect_off(off_by_norm, gradient, given, prefix + "grad." + name, tolerance.value(own, tolerance.at("grad").get<double>()));
  }
}

void training(const Case& given) {
  MmtNet network = network_for(given);
  const nlohmann::json& config = given.facts.at("config");
  MmtNetTrainer trainer(network, {.adam = {.weight_decay = config.at("weight_decay")}, .gradients = MmtNetRule::reference});
  const DropoutRows rows;
  const MmtNetTrainer::Batch batch{golden::input(given, "rgb"), golden::input(given, "skeleton"), given.tensor("in.label"), &rows};
  for (const bool visual : {true, false}) {
    const std::string step = visual ? "step0" : "step1";
    const nlohmann::json& tolerance = given.facts.at("tolerance").at(step);
    const double rate = config.at("lr");
    const MmtNetTrainer::Step got = visual ? trainer.visual_step(batch, rate) : trainer.skeleton_step(batch, rate);
    expect_off(off_by_norm, got.loss.reshape({1}), given, step + ".loss", tolerance.at("loss"));
    for (const auto& [logits, branch] :
         {std::pair{got.logits.visual, "visual_logits"}, std::pair{got.logits.skeleton, "skeleton_logits"}}) {
      const double allowed = tolerance.contains(branch) ? tolerance.at(branch) : tolerance.at("logits");
      expect_off(off_by_norm, logits, given, step + "." + branch, allowed);
    }
    expect_gradients(given, network, step + ".", tolerance);
  }
  for (const auto& [name, tensor] : network.buffers()) {
    if (!given.has("after." + name)) continue;
    const std::string what = name.substr(name.rfind('.') + 1);
    expect_off(off_by_norm, tensor, given, "after." + name, given.facts.at("tolerance").at("after").at(what));
  }
}

}  // namespace
}  // namespace fusion

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  fusion::prepare_training_thread();
  fusion::golden::register_cases({{"MMTNet forward (whole network)", fusion::evaluation},
                                  {"MMTNet training: one batch = step(0) visual then step(1) skeleton", fusion::training}});
  return RUN_ALL_TESTS();
}
