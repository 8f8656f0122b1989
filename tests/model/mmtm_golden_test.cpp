// The multimodal transfer module against the numbers of the authors' own code.
#include "model/mmtm.h"

#include <regex>

#include "model/adam.h"
#include "model/device.h"
#include "tests/model/golden_cases.h"
#include "tests/model/mmtm_cases.h"

namespace fusion {
namespace {

using golden::Case;
using golden::expect_close;
using golden::Tolerance;

TEST(FillTest, GivesTheNumbersOfItsDefinition) {
  const auto first = [](std::uint64_t k) {
    return golden::filled({{"shape", {4}}, {"k", k}, {"scale", 2}, {"offset", 0.25}});
  };
  const at::Tensor one = first(1), million = first(1'100'000);
  EXPECT_FLOAT_EQ(one[0].item<float>(), 1.59879947F);
  EXPECT_FLOAT_EQ(one[2].item<float>(), -0.780234575F);
  EXPECT_FLOAT_EQ(one[3].item<float>(), 2.18974614F);
  EXPECT_FLOAT_EQ(million[0].item<float>(), 1.93140101F);
  EXPECT_FLOAT_EQ(million[3].item<float>(), -1.67742085F);
}

/// The number behind a word: of "Adam lr 1e-4 weight_decay 1e-4".
double number_after(const std::string& word, const std::string& text) {
  std::smatch found;
  if (!std::regex_search(text, found, std::regex(word + R"(\s+([-+.0-9e]+))"))) {
    ADD_FAILURE() << "no " << word << " in: " << text;
    return 0;
  }
  return std::stod(found[1]);
}

/// Gradients of sum(out * given), then one step of Adam.
void train(const Case& given, Mmtm& module, const std::vector<at::Tensor>& maps, const std::vector<at::Tensor>& out) {
  const double gradient = given.facts.at("tolerance").at("gradient");
  const std::vector<std::string> names{"visual", "skeleton"};
  at::Tensor loss = out[0].mul(given.tensor("in.grad_visual_out")).sum();
  loss = loss.add(out[1].mul(given.tensor("in.grad_skeleton_out")).sum());
  expect_close(loss.reshape({1}), given.tensor("out.loss"), {1e-4, 1e-5}, "loss");
  Adam adam(module.parameters().tensors(),
            {.weight_decay = number_after("weight_decay", given.facts.at("config").at("optimizer"))});
  loss.backward();
  for (std::size_t m = 0; m < maps.size(); ++m) {
    expect_close(maps[m].grad(), given.tensor("grad." + names[m]), {gradient, 0}, "grad." + names[m]);
  }
  for (const auto& [name, parameter] : module.parameters().named()) {
    expect_close(parameter.grad(), given.tensor("grad." + name), {gradient, 0}, "grad." + name);
  }
  adam.step(number_after("lr", given.facts.at("config").at("optimizer")));
  const double step = given.facts.at("tolerance").at("adam_step");
  for (const auto& [name, parameter] : module.parameters().named()) {
    expect_close(parameter, given.tensor("adam1." + name), {step, 0}, "adam1." + name);
  }
}

void module_case(const Case& given) {
  const nlohmann::json& config = given.facts.at("config");
  Mmtm module({config.at("dim_visual"), config.at("dim_skeleton")}, {config.at("ratio"), GateRule::reference}, 0);
  EXPECT_EQ(module.hidden(), config.at("dim_out").get<std::int64_t>());
  golden::set_weights(given, module.parameters().named());
  const std::vector<at::Tensor> maps{golden::input(given, "in.visual"), golden::input(given, "in.skeleton")};
  for (const at::Tensor& map : maps) map.set_requires_grad(true);
  const std::vector<at::Tensor> out = module.forward(maps);
  const double forward = given.facts.at("tolerance").at("forward");
  expect_close(out[0], given.tensor("out.visual"), {forward, 0}, "out.visual");
  expect_close(out[1], given.tensor("out.skeleton"), {forward, 0}, "out.skeleton");
  if (given.has("out.loss")) train(given, module, maps, out);
}

}  // namespace
}  // namespace fusion

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  fusion::prepare_training_thread();
  fusion::golden::register_cases({{"MMTM", fusion::module_case}});
  return RUN_ALL_TESTS();
}
