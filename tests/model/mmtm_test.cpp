#include "model/mmtm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_reader.h"
#include "base/random.h"
#include "model/initialise.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Shape = std::vector<std::int64_t>;

const at::TensorOptions kDoubles = at::TensorOptions().dtype(at::kDouble);

at::Tensor random_map(const Shape& shape, Rng& rng, c10::ScalarType type = at::kDouble) {
  const at::Tensor map = at::empty(shape, at::TensorOptions().dtype(type));
  fill_normal(map, 1.0, rng);
  return map;
}

/// [2, channels] and `rank` axes of 2, 3, 2, ... behind them.
Shape shape_of_rank(std::int64_t channels, int rank) {
  Shape shape{2, channels};
  for (int axis = 0; axis < rank; ++axis) shape.push_back(2 + axis % 2);
  return shape;
}

/// Compares a tensor's gradient with the central differences of `loss`, element by element.
void expect_numeric_gradient(const at::Tensor& tensor, const std::function<at::Tensor()>& loss, const std::string& what) {
  ASSERT_TRUE(tensor.grad().defined()) << what;
  const at::Tensor gradient = tensor.grad().contiguous();
  const at::NoGradGuard no_grad;
  constexpr double kStep = 1e-6;
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    double& value = tensor.data_ptr<double>()[i];
    const double kept = value;
    value = kept + kStep;
    const double above = loss().item<double>();
    value = kept - kStep;
    const double below = loss().item<double>();
    value = kept;
    const double expected = (above - below) / (2 * kStep);
    EXPECT_NEAR(gradient.data_ptr<double>()[i], expected, 1e-7 + 1e-5 * std::abs(expected)) << what << "[" << i << "]";
  }
}

struct GradientCase {
  GateRule gate;
  std::vector<int> ranks;  ///< of each modality's map
};

class MmtmGradientTest : public ::testing::TestWithParam<GradientCase> {};

TEST_P(MmtmGradientTest, EqualsFiniteDifferences) {
  const GradientCase& given = GetParam();
  Rng rng(7);
  Shape channels;
  std::vector<at::Tensor> maps, weights;
  for (std::size_t m = 0; m < given.ranks.size(); ++m) {
    channels.push_back(3 + static_cast<std::int64_t>(m));
    maps.push_back(random_map(shape_of_rank(channels[m], given.ranks[m]), rng).set_requires_grad(true));
    weights.push_back(random_map(maps[m].sizes().vec(), rng));
  }
  const Mmtm module(channels, {2.5, given.gate}, 5, kDoubles);
  const auto loss = [&] {
    const std::vector<at::Tensor> out = module.forward(maps);
    at::Tensor sum = out[0].mul(weights[0]).sum();
    for (std::size_t m = 1; m < out.size(); ++m) sum = sum.add(out[m].mul(weights[m]).sum());
    return sum;
  };
  loss().backward();
  for (std::size_t m = 0; m < maps.size(); ++m) expect_numeric_gradient(maps[m], loss, "map " + std::to_string(m));
  for (const auto& [name, parameter] : module.parameters().named()) expect_numeric_gradient(parameter, loss, name);
}

std::vector<GradientCase> gradient_cases() {
  std::vector<GradientCase> cases;
  for (const auto& [gate, name] : EnumNames<GateRule>::kTable) {
    for (int a = 0; a <= 3; ++a) {
      for (int b = 0; b <= 3; ++b) cases.push_back({gate, {a, b}});
    }
    cases.push_back({gate, {3, 0, 1}});
    cases.push_back({gate, {0, 2, 1, 0}});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Ranks, MmtmGradientTest, ::testing::ValuesIn(gradient_cases()), [](const auto& cell) {
  std::string name(name_of(cell.param.gate));
  for (const int rank : cell.param.ranks) name += "_" + std::to_string(rank);
  return name;
});

TEST(MmtmTest, CountsHiddenUnitsByTruncation) {
  const auto hidden = [](double ratio) { return Mmtm({12, 8}, {ratio}, 1).hidden(); };
  EXPECT_EQ(hidden(1), 40);
  EXPECT_EQ(hidden(3), 13);
  EXPECT_EQ(hidden(4), 10);
  EXPECT_EQ(hidden(16), 2);
  EXPECT_EQ(hidden(40), 1);
  EXPECT_EQ(Mmtm({3, 4, 5}, {4}, 1).hidden(), 6);
}

TEST(MmtmTest, NamesItsTensorsAsTheReferenceDoes) {
  const auto names = [](const Mmtm& module) {
    std::vector<std::string> all;
    for (const auto& [name, tensor] : module.parameters().named()) all.push_back(name);
    return all;
  };
  const Mmtm two({12, 8}, {}, 1);
  EXPECT_THAT(names(two), ::testing::ElementsAre("fc_squeeze.weight", "fc_squeeze.bias", "fc_visual.weight", "fc_visual.bias",
                                                 "fc_skeleton.weight", "fc_skeleton.bias"));
  EXPECT_EQ(two.parameters().at("fc_skeleton.weight").sizes(), (Shape{8, 10}));
  EXPECT_EQ(two.parameters().count(), 20 * 10 + 10 + 20 * 10 + 20);
  const Mmtm three({2, 3, 4}, {}, 1);
  EXPECT_EQ(three.parameters().at("fc_gate2.bias").sizes(), (Shape{4}));
}

TEST(MmtmTest, LeavesMapsAsTheyAreWhenTheExcitationIsZero) {
  Rng rng(1);
  const std::vector<at::Tensor> maps{random_map({2, 3, 2, 2}, rng, at::kFloat), random_map({2, 4}, rng, at::kFloat)};
  for (const auto& [gate, factor] : {std::pair{GateRule::paper, 1.0}, std::pair{GateRule::reference, 0.5}}) {
    Mmtm module({3, 4}, {4, gate}, 1);
    module.parameters().restore(at::zeros({module.parameters().count()}));
    const std::vector<at::Tensor> out = module.forward(maps);
    for (std::size_t m = 0; m < 2; ++m) EXPECT_TRUE(out[m].equal(maps[m].mul(factor))) << name_of(gate) << " " << m;
  }
}

TEST(MmtmTest, GivesTwiceTheReferenceInThePapersForm) {
  Rng rng(2);
  const std::vector<at::Tensor> maps{random_map({3, 6, 5}, rng), random_map({3, 2, 2, 2, 2}, rng)};
  const auto paper = Mmtm({6, 2}, {3, GateRule::paper}, 9, kDoubles).forward(maps);
  const auto reference = Mmtm({6, 2}, {3, GateRule::reference}, 9, kDoubles).forward(maps);
  for (std::size_t m = 0; m < 2; ++m) EXPECT_TRUE(paper[m].equal(reference[m].mul(2)));
}

TEST(MmtmTest, SqueezesAllModalitiesTogether) {
  Rng rng(3);
  const Mmtm module({2, 3, 4}, {}, 4, kDoubles);
  std::vector<at::Tensor> maps{random_map({1, 2, 3}, rng), random_map({1, 3}, rng), random_map({1, 4, 2, 2}, rng)};
  const std::vector<at::Tensor> before = module.gates(maps);
  for (std::size_t changed = 0; changed < maps.size(); ++changed) {
    std::vector<at::Tensor> others = maps;
    others[changed] = maps[changed].add(3);
    const std::vector<at::Tensor> after = module.gates(others);
    for (std::size_t m = 0; m < maps.size(); ++m) EXPECT_FALSE(after[m].equal(before[m])) << changed << " does not reach " << m;
  }
  maps[2] = maps[2].mean(at::IntArrayRef{2, 3});  // only the mean over the places counts
  EXPECT_TRUE(module.gates(maps)[0].allclose(before[0]));
}

TEST(MmtmTest, DrawsItsWeightsFromTheSeed) {
  const auto weights = [](std::uint64_t seed) { return Mmtm({20, 12}, {}, seed).parameters().snapshot(); };
  EXPECT_TRUE(weights(3).equal(weights(3)));
  EXPECT_FALSE(weights(3).equal(weights(4)));
  const Mmtm module({20, 12}, {}, 3);  // D = 16
  const auto bound = [&](const char* name) { return module.parameters().at(name).abs().max().item<double>(); };
  for (const char* const name : {"fc_squeeze.weight", "fc_squeeze.bias"}) {
    EXPECT_LE(bound(name), 1 / std::sqrt(32.0)) << name;
    EXPECT_GT(bound(name), 0.5 / std::sqrt(32.0)) << name;
  }
  for (const char* const name : {"fc_visual.weight", "fc_skeleton.bias"}) {
    EXPECT_LE(bound(name), 1 / std::sqrt(16.0)) << name;
    EXPECT_GT(bound(name), 0.5 / std::sqrt(16.0)) << name;
  }
}

TEST(MmtmTest, RefusesWhatItCannotBuildOrScale) {
  const auto building = [](const Shape& channels, double ratio) {
    return [=] { Mmtm(channels, {ratio}, 1); };
  };
  EXPECT_THAT(building({3}, 4), ThrowsMessage<ModelError>(HasSubstr("expected two modalities or more, got 1")));
  EXPECT_THAT(building({3, 0}, 4), ThrowsMessage<ModelError>(HasSubstr("modality 1: expected at least 1 channel, got 0")));
  EXPECT_THAT(building({2, 1}, 7), ThrowsMessage<ModelError>(HasSubstr("at most twice the channels (6), got 7")));
  EXPECT_THAT(building({2, 1}, -1), ThrowsMessage<ModelError>(HasSubstr("expected above 0")));
  EXPECT_THAT(building({2, 1}, std::nan("")), ThrowsMessage<ModelError>(HasSubstr("expected above 0")));
  const Mmtm module({3, 4}, {}, 1);
  const auto scaling = [&](std::vector<at::Tensor> maps) {
    return [&module, maps] { module.forward(maps); };
  };
  EXPECT_THAT(scaling({at::ones({2, 3})}), ThrowsMessage<ModelError>(HasSubstr("each of the 2 modalities, got 1")));
  EXPECT_THAT(scaling({at::ones({2, 3}), at::ones({2, 3})}),
              ThrowsMessage<ModelError>(HasSubstr("modality 1: expected a map [2, 4, ...], got [2, 3]")));
  EXPECT_THAT(scaling({at::ones({2, 3}), at::ones({1, 4})}), ThrowsMessage<ModelError>(HasSubstr("got [1, 4]")));
  EXPECT_THAT(scaling({at::ones({3}), at::ones({3, 4})}), ThrowsMessage<ModelError>(HasSubstr("modality 0")));
  EXPECT_THAT(scaling({at::ones({2, 3, 0}), at::ones({2, 4})}), ThrowsMessage<ModelError>(HasSubstr("not empty")));
  EXPECT_THAT(scaling({at::Tensor(), at::ones({2, 4})}), ThrowsMessage<ModelError>(HasSubstr("there is no map")));
}

TEST(MmtmTest, ReadsItsOptions) {
  JsonProblems problems;
  const nlohmann::json document = {{"ratio", 8}, {"gate", "reference"}};
  JsonReader reader(document, "head.json", problems);
  const MmtmOptions options = MmtmOptions::read(reader);
  reader.finish();
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(options, (MmtmOptions{8, GateRule::reference}));
  EXPECT_EQ(options.to_json(), document);
}

}  // namespace
}  // namespace fusion
