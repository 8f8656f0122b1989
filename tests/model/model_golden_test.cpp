// Backbones and fusion networks against the reference's own numbers.
#include "tests/model/golden_cases.h"

#include "model/device.h"
#include "model/fusion_network.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

using golden::Case;
using golden::expect_close;
using golden::Tolerance;

/// The reference's audio network pools tap 0 behind the max pooling; its sidecar says so.
bool pools_first_tap_late(const Case& given) {
  for (const auto& sentence : given.facts.at("op_order")) {
    if (sentence.get<std::string>().find("EXCEPT tap 0") != std::string::npos) return true;
  }
  return false;
}

void backbone_forward(const Case& given) {
  const Tolerance tolerance = Tolerance::read(given.facts.at("tolerance"));
  const at::Tensor input = given.tensor("input");
  LeNet network(golden::lenet_options(given.tensors, "", input, pools_first_tap_late(given)), 0);
  load_tensors(given.tensors, golden::all_tensors(network));
  for (const std::string mode : {"eval", "train"}) {
    if (!given.has(mode + ".logits")) continue;
    const BackboneOutput out = network.forward(input, mode == "train");
    expect_close(out.logits, given.tensor(mode + ".logits"), tolerance, mode + ".logits");
    for (std::size_t i = 0; i < out.taps.size(); ++i) {
      const std::string name = mode + ".tap" + std::to_string(i);
      expect_close(out.taps[i], given.tensor(name), tolerance, name);
    }
  }
  for (const auto& [name, tensor] : network.buffers().named()) {
    if (given.has("train.after." + name)) expect_close(tensor, given.tensor("train.after." + name), tolerance, name);
  }
}

void fusion_forward(const Case& given) {
  const Tolerance tolerance = Tolerance::read(given.facts.at("tolerance"));
  std::vector<std::vector<at::Tensor>> taps;
  TapWidths widths;
  for (const std::string modality : {"audio", "image"}) {
    auto& of_modality = taps.emplace_back();
    auto& of_widths = widths.emplace_back();
    for (int i = 0; given.has("tap." + modality + std::to_string(i)); ++i) {
      of_modality.push_back(given.tensor("tap." + modality + std::to_string(i)));
      of_widths.push_back(of_modality.back().size(1));
    }
  }
  const FusionOptions options{given.facts.at("inner_representation_size"), given.facts.at("num_outputs"),
                              given.facts.at("batchnorm"), given.facts.at("alphas")};
  FusionNetwork network(architecture_from_triplets(given.facts.at("conf")), widths, options, 0);
  load_tensors(given.tensors, network.parameters().named());
  load_tensors(given.tensors, network.buffers().named());
  std::vector<at::Tensor> joined;
  for (std::size_t i = 0; i < network.architecture().steps.size(); ++i) joined.push_back(network.join(i, taps));
  FusionNetwork::Trace trace;
  const bool training = given.facts.value("mode", "eval").rfind("train", 0) == 0;
  const at::Tensor logits = network.forward(joined, {}, training, &trace);
  expect_close(logits, given.tensor("expected.logits"), tolerance, "logits");
  for (std::size_t i = 0; i < trace.fused.size(); ++i) {
    const std::string n = std::to_string(i);
    if (given.has("expected.fused" + n)) expect_close(trace.fused[i], given.tensor("expected.fused" + n), tolerance, "fused" + n);
    if (given.has("expected.hidden" + n)) expect_close(trace.hidden[i], given.tensor("expected.hidden" + n), tolerance, "hidden" + n);
  }
}

}  // namespace
}  // namespace fusion

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  fusion::prepare_training_thread();
  fusion::golden::register_cases({{"backbone_forward", fusion::backbone_forward}, {"fusion_forward", fusion::fusion_forward}});
  return RUN_ALL_TESTS();
}
