#include "model/fusion_network.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "model/initialise.h"
#include "model/torch_compat.h"
#include "space/search_space.h"

namespace fusion {
namespace {

const TapWidths kWidths{{3, 5}, {4, 2}};
constexpr std::int64_t kRows = 6, kClasses = 3;

at::Tensor random_tensor(const std::vector<std::int64_t>& shape, Rng& rng, c10::ScalarType type = at::kDouble) {
  const at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(type));
  fill_normal(tensor, 1.0, rng);
  return tensor;
}

std::vector<std::vector<at::Tensor>> random_taps(const TapWidths& widths, Rng& rng, c10::ScalarType type = at::kDouble) {
  std::vector<std::vector<at::Tensor>> taps;
  for (const auto& of_modality : widths) {
    auto& tensors = taps.emplace_back();
    for (const std::int64_t width : of_modality) tensors.push_back(random_tensor({kRows, width}, rng, type));
  }
  return taps;
}

std::vector<at::Tensor> join_all(const FusionNetwork& network, const std::vector<std::vector<at::Tensor>>& taps) {
  std::vector<at::Tensor> joined;
  for (std::size_t i = 0; i < network.architecture().steps.size(); ++i) joined.push_back(network.join(i, taps));
  return joined;
}

at::Tensor labels() {
  const at::Tensor tensor = at::empty({kRows}, at::kLong);
  for (std::int64_t i = 0; i < kRows; ++i) tensor.data_ptr<std::int64_t>()[i] = i % kClasses;
  return tensor;
}

Architecture two_steps(FusionOp op, Activation activation) {
  return Architecture{{FusionStep{{1, 0}, op, activation}, FusionStep{{0, 1}, op, activation}}};
}

struct GradientCase {
  FusionOp op;
  Activation activation;
  bool batchnorm, alphas;
};

class GradientTest : public ::testing::TestWithParam<GradientCase> {};

TEST_P(GradientTest, EqualsFiniteDifferences) {
  const GradientCase& given = GetParam();
  Rng rng(11);
  FusionNetwork network(two_steps(given.op, given.activation), kWidths, {4, kClasses, given.batchnorm, given.alphas}, 5,
                        at::TensorOptions().dtype(at::kDouble));
  const std::vector<at::Tensor> joined = join_all(network, random_taps(kWidths, rng));
  const std::vector<at::Tensor> masks{random_tensor({kRows, 4}, rng), random_tensor({kRows, 4}, rng)};
  const at::Tensor truth = labels();
  const auto loss = [&] { return at::cross_entropy_loss(network.forward(joined, masks, true), truth); };
  loss().backward();
  const at::NoGradGuard no_grad;
  constexpr double kStep = 1e-6;
  for (const auto& [name, parameter] : network.parameters().named()) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    for (std::int64_t i = 0; i < parameter.numel(); ++i) {
      double& value = parameter.data_ptr<double>()[i];
      const double kept = value;
      value = kept + kStep;
      const double above = loss().item<double>();
      value = kept - kStep;
      const double below = loss().item<double>();
      value = kept;
      const double expected = (above - below) / (2 * kStep);
      EXPECT_NEAR(parameter.grad().data_ptr<double>()[i], expected, 1e-7 + 1e-5 * std::abs(expected)) << name << "[" << i << "]";
    }
  }
}

std::vector<GradientCase> gradient_cases() {
  std::vector<GradientCase> cases;
  for (const auto& [op, op_name] : EnumNames<FusionOp>::kTable) {
    for (const auto& [activation, name] : EnumNames<Activation>::kTable) {
      for (const bool batchnorm : {false, true}) {
        for (const bool alphas : {false, true}) cases.push_back({op, activation, batchnorm, alphas});
      }
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(AllCells, GradientTest, ::testing::ValuesIn(gradient_cases()), [](const auto& cell) {
  return std::string(name_of(cell.param.op)) + "_" + std::string(name_of(cell.param.activation)) +
         (cell.param.batchnorm ? "_batchnorm" : "") + (cell.param.alphas ? "_alphas" : "");
});

TEST(FusionNetworkTest, TrainsEveryArchitectureOfATinySpace) {
  DatasetSpec dataset;
  dataset.classes = kClasses;
  dataset.modalities = {{"a", {{"t0", 3}, {"t1", 5}}, false}, {"b", {{"t0", 4}, {"t1", 2}}, false}};
  const SearchSpace space = SearchSpace::whole(dataset, 2);
  ASSERT_EQ(space.count(), "72");  // 8 + 64
  Rng rng(3);
  const auto taps = random_taps(kWidths, rng, at::kFloat);
  for (std::uint64_t i = 0; i < space.count_saturated(); ++i) {
    const Architecture architecture = space.at(i);
    FusionNetwork network(architecture, tap_widths(dataset), {4, kClasses}, i);
    const at::Tensor logits = network.forward(join_all(network, taps), {}, true);
    ASSERT_EQ(logits.sizes(), (std::vector<std::int64_t>{kRows, kClasses}));
    at::cross_entropy_loss(logits, labels()).backward();
    for (const auto& [name, parameter] : network.parameters().named()) {
      ASSERT_TRUE(parameter.grad().defined() && parameter.grad().isfinite().all().item<bool>())
          << canonical_text(architecture) << " " << name;
    }
  }
}

TEST(FusionNetworkTest, JoinsThreeModalitiesAndScalesThemByAlpha) {
  const TapWidths widths{{2}, {3}, {1}};
  const Architecture architecture{{FusionStep{{0, 0, 0}, FusionOp::concat_fc, Activation::identity}}};
  FusionNetwork network(architecture, widths, {4, kClasses, false, true}, 5);
  network.parameters().at("layer0.alpha").data().fill_(std::log(3.0));  // sigmoid is 3/4
  Rng rng(2);
  const auto taps = random_taps(widths, rng, at::kFloat);
  FusionNetwork::Trace trace;
  network.forward(join_all(network, taps), {}, false, &trace);
  EXPECT_EQ(network.input_width(0), 6);
  const at::Tensor x = trace.fused.front();
  EXPECT_TRUE(x.narrow(1, 0, 2).allclose(taps[0][0].mul(0.75)));
  EXPECT_TRUE(x.narrow(1, 2, 3).allclose(taps[1][0].mul(0.25)));
  EXPECT_TRUE(x.narrow(1, 5, 1).allclose(taps[2][0].mul(0.25)));
}

TEST(FusionNetworkTest, GatesAStepBySigmoid) {
  FusionNetwork network(two_steps(FusionOp::glu, Activation::relu), kWidths, {4, kClasses}, 5);
  Rng rng(2);
  FusionNetwork::Trace trace;
  network.forward(join_all(network, random_taps(kWidths, rng, at::kFloat)), {}, false, &trace);
  const auto& p = network.parameters();
  const at::Tensor x = trace.fused[1];
  const at::Tensor h = x.matmul(p.at("layer1.linear.weight").t()).add(p.at("layer1.linear.bias")).clamp_min(0);
  const at::Tensor gate = x.matmul(p.at("layer1.gate.weight").t()).add(p.at("layer1.gate.bias")).sigmoid();
  EXPECT_TRUE(trace.hidden[1].allclose(h.mul(gate), 1e-5, 1e-6));
}

TEST(FusionNetworkTest, DrawsTheSameWeightsFromTheSameSeed) {
  const Architecture architecture = two_steps(FusionOp::concat_fc, Activation::relu);
  const FusionNetwork a(architecture, kWidths, {4, kClasses}, 5);
  const FusionNetwork b(architecture, kWidths, {4, kClasses}, 5);
  const FusionNetwork other(architecture, kWidths, {4, kClasses}, 6);
  EXPECT_TRUE(a.parameters().snapshot().equal(b.parameters().snapshot()));
  EXPECT_FALSE(a.parameters().snapshot().equal(other.parameters().snapshot()));
  const double bound = 1 / std::sqrt(9.0);  // 5 + 4 inputs
  const at::Tensor weight = a.parameters().at("layer0.linear.weight");
  EXPECT_LE(weight.abs().max().item<double>(), bound);
  EXPECT_GT(weight.abs().max().item<double>(), 0.8 * bound);
}

TEST(FusionNetworkTest, NamesTheStepAndTapThatDoNotExist) {
  const auto message = [](const Architecture& architecture) {
    try {
      FusionNetwork(architecture, kWidths, {4, kClasses}, 1);
    } catch (const ModelError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message(Architecture{{FusionStep{{0, 0}}, FusionStep{{0, 7}}}}),
            "fusion network: step 2: modality 1 has taps 0 to 1, got tap 7");
  EXPECT_EQ(message(Architecture{{FusionStep{{0}}}}),
            "fusion network: step 1: expected one tap for each of the 2 modalities, got 1");
  EXPECT_EQ(message(Architecture{}), "fusion network: expected at least one step, got none");
}

TEST(FlatTensorsTest, RestoresASnapshot) {
  FusionNetwork network(two_steps(FusionOp::concat_fc, Activation::relu), kWidths, {4, kClasses}, 5);
  const at::Tensor snapshot = network.parameters().snapshot();
  const at::Tensor weight = network.parameters().at("classifier.weight");
  const at::Tensor before = weight.detach().clone();
  weight.data().zero_();
  EXPECT_FALSE(weight.equal(before));
  network.parameters().restore(snapshot);
  EXPECT_TRUE(weight.equal(before));
  EXPECT_EQ(network.parameters().count(), 4 * 9 + 4 + 4 * 9 + 4 + 3 * 4 + 3);
  EXPECT_THROW(network.parameters().at("layer9.linear.weight"), ModelError);
}

}  // namespace
}  // namespace fusion
