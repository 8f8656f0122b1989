#include "model/temporal_head.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "model/initialise.h"
#include "model/slowfast_head.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

constexpr std::int64_t kRows = 4, kTokens = 3, kClasses = 3;

at::Tensor random_tensor(const std::vector<std::int64_t>& shape, std::uint64_t seed, c10::ScalarType type = at::kDouble) {
  const at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(type));
  Rng rng(seed);
  fill_normal(tensor, 1.0, rng);
  return tensor;
}

at::Tensor labels(std::int64_t rows) {
  const at::Tensor tensor = at::empty({rows}, at::kLong);
  for (std::int64_t i = 0; i < rows; ++i) tensor.data_ptr<std::int64_t>()[i] = i % kClasses;
  return tensor;
}

/// Every gradient of `loss` against central differences, in double. The parameters are moved off their initial zeros and ones first.
void expect_gradients(const FlatTensors& parameters, const std::function<at::Tensor()>& loss) {
  {
    const at::NoGradGuard no_grad;
    for (const auto& [name, parameter] : parameters.named()) parameter.add_(random_tensor(parameter.sizes().vec(), 77), 0.3);
  }
  loss().backward();
  const at::NoGradGuard no_grad;
  constexpr double kStep = 1e-6;
  for (const auto& [name, parameter] : parameters.named()) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    const at::Tensor gradient = parameter.grad().contiguous();
    for (std::int64_t i = 0; i < parameter.numel(); ++i) {
      double& value = parameter.data_ptr<double>()[i];
      const double kept = value;
      value = kept + kStep;
      const double above = loss().item<double>();
      value = kept - kStep;
      const double below = loss().item<double>();
      value = kept;
      const double expected = (above - below) / (2 * kStep);
      ASSERT_NEAR(gradient.data_ptr<double>()[i], expected, 1e-7 + 1e-5 * std::abs(expected)) << name << "[" << i << "]";
    }
  }
}

struct HeadCase {
  std::string name;
  TemporalHeadOptions options;
  std::vector<std::int64_t> shape{kRows, kTokens, 4};
};

std::vector<HeadCase> head_cases() {
  std::vector<HeadCase> cases;
  TemporalHeadOptions base;
  base.bert.heads = 2;
  base.bert.keep = 0.5;
  base.bert.dropout = 0.2;
  base.classifier_dropout = 0.3;
  base.hidden = 3;
  for (const auto& [variant, name] : EnumNames<BertClass>::kTable) {
    TemporalHeadOptions options = base;
    options.bert.variant = variant;
    const bool pair = variant == BertClass::bert5_both;
    cases.push_back({std::string(name), options, {kRows, kTokens, pair ? 8 : 4}});
  }
  TemporalHeadOptions deep = base;
  deep.bert.layers = 2;
  deep.normalise = true;
  cases.push_back({"two_layers_normalised", deep});
  for (const TemporalKind kind : {TemporalKind::mean, TemporalKind::concatenation, TemporalKind::lstm, TemporalKind::non_local}) {
    TemporalHeadOptions options = base;
    options.kind = kind;
    options.affinity_width = 2;
    cases.push_back({std::string(name_of(kind)), options});
    cases.push_back({std::string(name_of(kind)) + "_features", options, {kRows, 4, kTokens, 2, 2}});
  }
  for (const ReductionKernel kernel : {ReductionKernel::time, ReductionKernel::volume}) {
    TemporalHeadOptions options = base;
    options.reduction.kernel = kernel;
    const std::vector<std::int64_t> shape =
        kernel == ReductionKernel::time ? std::vector<std::int64_t>{kRows, kTokens, 6} : std::vector<std::int64_t>{kRows, 6, kTokens, 2, 2};
    options.reduction.kind = ReductionKind::bottleneck;
    options.reduction.width = 4;
    options.reduction.groups = 2;
    cases.push_back({"bottleneck_" + std::string(name_of(kernel)), options, shape});
    options.reduction.kind = ReductionKind::inception;
    options.reduction.branches = {1, 2, 1, 1, 1, 1};
    cases.push_back({"inception_" + std::string(name_of(kernel)), options, shape});
  }
  return cases;
}

class HeadTest : public ::testing::TestWithParam<HeadCase> {
 protected:
  std::int64_t width() const { return GetParam().shape[GetParam().shape.size() == 3 ? 2 : 1]; }
};

TEST_P(HeadTest, HasTheGradientsOfFiniteDifferencesWhileTraining) {
  TemporalHead head(GetParam().options, kTokens, width(), kClasses, 5, at::TensorOptions().dtype(at::kDouble));
  const at::Tensor x = random_tensor(GetParam().shape, 3), truth = labels(kRows);
  const HeadPass pass = HeadPass::train(9, 40);
  expect_gradients(head.parameters(), [&] { return at::cross_entropy_loss(head.forward(x, pass), truth); });
}

TEST_P(HeadTest, DrawsTheSameHoweverRowsAreCut) {
  const bool batch_statistics =
      GetParam().options.reduction.kind != ReductionKind::none || GetParam().options.kind == TemporalKind::non_local;
  if (batch_statistics) return;  // batch normalisation makes rows depend on their batch
  TemporalHead head(GetParam().options, kTokens, width(), kClasses, 5);
  const at::Tensor x = random_tensor(GetParam().shape, 3, at::kFloat);
  const at::Tensor whole = head.forward(x, HeadPass::train(9, 40));
  const at::Tensor first = head.forward(x.narrow(0, 0, 1), HeadPass::train(9, 40));
  const at::Tensor rest = head.forward(x.narrow(0, 1, kRows - 1), HeadPass::train(9, 41));
  EXPECT_TRUE(first.allclose(whole.narrow(0, 0, 1), 1e-5, 1e-6));
  EXPECT_TRUE(rest.allclose(whole.narrow(0, 1, kRows - 1), 1e-5, 1e-6));
  EXPECT_FALSE(head.forward(x, HeadPass::train(10, 40)).allclose(whole, 1e-5, 1e-6)) << "another seed, the same draws";
  EXPECT_FALSE(head.forward(x, HeadPass::train(9, 44)).allclose(whole, 1e-5, 1e-6)) << "other rows, the same draws";
}

TEST_P(HeadTest, DrawsNothingInEvaluation) {
  TemporalHead head(GetParam().options, kTokens, width(), kClasses, 5);
  const at::Tensor x = random_tensor(GetParam().shape, 3, at::kFloat);
  HeadPass other = HeadPass::evaluation();
  other.seed = 4;
  EXPECT_TRUE(head.forward(x, HeadPass::evaluation()).equal(head.forward(x, other)));
}

TEST_P(HeadTest, OptionsSurviveJson) {
  const nlohmann::json written = GetParam().options.to_json();
  JsonProblems problems;
  JsonReader reader(written, "head.json", problems);
  EXPECT_EQ(TemporalHeadOptions::read(reader), GetParam().options);
  EXPECT_TRUE(problems.empty()) << problems.list().front();
}

INSTANTIATE_TEST_SUITE_P(AllHeads, HeadTest, ::testing::ValuesIn(head_cases()), [](const auto& given) { return given.param.name; });

class SlowFastTest : public ::testing::TestWithParam<PathwayFusion> {};

TEST_P(SlowFastTest, HasTheGradientsOfFiniteDifferencesWhileTraining) {
  SlowFastHeadOptions options;
  options.fusion = GetParam();
  options.slow_channels = 3;
  options.fast_channels = 2;
  options.slow_tokens = 2;
  options.fast_tokens = 4;
  options.slow_reduction = {.kind = ReductionKind::bottleneck, .kernel = ReductionKernel::volume, .width = 4, .groups = 1};
  if (GetParam() == PathwayFusion::early) options.fast_reduction = options.slow_reduction;
  options.bert.heads = 2;
  options.bert.keep = 0.5;
  SlowFastHead head(options, kClasses, 5, at::TensorOptions().dtype(at::kDouble));
  const at::Tensor slow = random_tensor({kRows, 3, 2, 2, 2}, 3), fast = random_tensor({kRows, 2, 4, 2, 2}, 4), truth = labels(kRows);
  const HeadPass pass = HeadPass::train(9, 40);
  expect_gradients(head.parameters(), [&] { return at::cross_entropy_loss(head.forward(slow, fast, pass), truth); });
}

INSTANTIATE_TEST_SUITE_P(Both, SlowFastTest, ::testing::Values(PathwayFusion::early, PathwayFusion::late),
                         [](const auto& given) { return std::string(name_of(given.param)); });

TemporalHeadOptions without_dropout(BertClass variant, double keep) {
  TemporalHeadOptions options;
  options.bert.variant = variant;
  options.bert.heads = 2;
  options.bert.keep = keep;
  options.bert.dropout = 0;
  options.classifier_dropout = 0;
  return options;
}

TEST(BertMaskTest, HidesEveryTokenButTheFirstWhereNoneIsKept) {
  TemporalHead head(without_dropout(BertClass::bert5, 0), kTokens, 4, kClasses, 5);
  const at::Tensor a = random_tensor({kRows, kTokens, 4}, 1, at::kFloat), b = random_tensor({kRows, kTokens, 4}, 2, at::kFloat);
  EXPECT_TRUE(head.forward(a, HeadPass::train(1, 0)).allclose(head.forward(b, HeadPass::train(1, 0))));
  EXPECT_FALSE(head.forward(a, HeadPass::evaluation()).allclose(head.forward(b, HeadPass::evaluation())));
}

TEST(BertMaskTest, IsTheEvaluationWhereAllAreKept) {
  TemporalHead head(without_dropout(BertClass::bert5, 1), kTokens, 4, kClasses, 5);
  const at::Tensor x = random_tensor({kRows, kTokens, 4}, 1, at::kFloat);
  EXPECT_TRUE(head.forward(x, HeadPass::train(1, 0)).equal(head.forward(x, HeadPass::evaluation())));
}

TEST(BertMaskTest, AHiddenTokenKeepsItsOwnOutputAndTouchesNoOther) {
  TemporalHead head(without_dropout(BertClass::bert5, 0.8), kTokens, 4, kClasses, 5);
  const at::Tensor a = random_tensor({1, kTokens, 4}, 1, at::kFloat);
  const at::Tensor b = a.clone();
  b.select(1, 1).add_(1.0).mul_(random_tensor({1, 4}, 8, at::kFloat));
  HeadPass pass = HeadPass::train(1, 0);
  pass.visible = at::ones({1, kTokens + 1});
  pass.visible.select(1, 2).zero_();  // the second token; the classification token is first
  TemporalHead::Trace of_a, of_b;
  head.forward(a, pass, &of_a);
  head.forward(b, pass, &of_b);
  for (std::int64_t i = 0; i <= kTokens; ++i) {
    EXPECT_EQ(of_a.sequence.select(1, i).allclose(of_b.sequence.select(1, i)), i != 2) << i;
  }
}

TEST(BertMaskTest, TheSeventhVariantOverwritesADrawnToken) {
  TemporalHead head(without_dropout(BertClass::bert7, 0.8), kTokens, 4, kClasses, 5);
  const at::Tensor a = random_tensor({1, kTokens, 4}, 1, at::kFloat);
  const at::Tensor b = a.clone();
  b.select(1, 1).fill_(3.0);
  HeadPass pass = HeadPass::train(1, 0);
  pass.visible = at::ones({1, kTokens + 1});
  pass.visible.select(1, 2).zero_();
  TemporalHead::Trace of_a, of_b;
  head.forward(a, pass, &of_a);
  head.forward(b, pass, &of_b);
  EXPECT_TRUE(of_a.sequence.equal(of_b.sequence));
  const at::NoGradGuard no_grad;
  head.parameters().at("bert.maskToken").add_(random_tensor({1, 1, 4}, 6, at::kFloat));
  head.forward(a, pass, &of_b);
  EXPECT_FALSE(of_a.sequence.select(1, 0).allclose(of_b.sequence.select(1, 0))) << "it is attended to";
}

TEST(BertMaskTest, KeepsTheShareItShould) {
  const at::Tensor kept = draw_kept(20'000, 8, 0.8, 3, HeadPass::train(1, 0), at::ones({1}));
  EXPECT_NEAR(kept.mean().item<double>(), 0.8, 0.005);
  EXPECT_TRUE(kept.eq(0).logical_or(kept.eq(1)).all().item<bool>());
}

TEST(BertPairTest, TheRulesDifferOnlyFromTheSecondLayerOn) {
  TemporalHeadOptions options = without_dropout(BertClass::bert5_both, 1);
  const at::Tensor x = random_tensor({kRows, kTokens, 8}, 1, at::kFloat);
  for (const std::int64_t layers : {1, 2}) {
    std::vector<at::Tensor> logits;
    for (const PairRule rule : {PairRule::repaired, PairRule::reference}) {
      options.bert.layers = layers;
      options.bert.pair_rule = rule;
      TemporalHead head(options, kTokens, 8, kClasses, 5);
      const at::NoGradGuard no_grad;
      const auto& p = head.parameters();
      p.at("bert.embedding2.learnedPosition.pe").copy_(p.at("bert.embedding1.learnedPosition.pe"));
      logits.push_back(head.forward(x, HeadPass::evaluation()));
    }
    EXPECT_EQ(logits[0].allclose(logits[1]), layers == 1);
  }
}

std::int64_t bert_count(BertClass variant, std::int64_t tokens, std::int64_t width) {
  TensorPlan plan;
  MaskPlaces places;
  Bert bert;
  BertOptions options;
  options.variant = variant;
  bert.declare(plan, "", options, tokens, width, places);
  return plan.make(0, {}).parameters.count();
}

TEST(ParameterCountTest, IsTheReferences) {
  EXPECT_EQ(bert_count(BertClass::bert5, 4, 512), 3'155'456);
  EXPECT_EQ(bert_count(BertClass::bert5, 8, 512), 3'157'504);
  EXPECT_EQ(bert_count(BertClass::bert5, 8, 640), 4'929'920);
  EXPECT_EQ(bert_count(BertClass::bert5, 32, 256), 798'464);
  EXPECT_EQ(bert_count(BertClass::bert3, 4, 512), 1'581'056);
}

std::int64_t reduction_count(const ReductionOptions& options, std::int64_t channels) {
  TensorPlan plan;
  Reduction reduction;
  reduction.declare(plan, "", channels, options);
  return plan.make(0, {}).parameters.count();
}

TEST(ParameterCountTest, OfTheReductionsIsTheReferences) {
  ReductionOptions options;
  options.kernel = ReductionKernel::volume;
  options.kind = ReductionKind::bottleneck;
  EXPECT_EQ(reduction_count(options, 2048), 1'762'304);
  options.groups = 1;
  EXPECT_EQ(reduction_count(options, 2048), 3'476'480);
  options.width = 128;
  EXPECT_EQ(reduction_count(options, 256), 168'704);
  options.kind = ReductionKind::inception;
  EXPECT_EQ(reduction_count(options, 1024), 925'424);
  EXPECT_EQ(reduction_count(options, 832), 853'232);
}

struct StartCase {
  BertClass variant;
  double token_deviation;
  bool torch_start;
};

TEST(BertStartTest, EachVariantHasItsInitialValues) {
  constexpr std::int64_t kWidth = 128;
  const double wide = 1 / std::sqrt(static_cast<double>(kWidth));
  for (const auto& [variant, deviation, torch_start] :
       {StartCase{BertClass::bert, wide, false}, {BertClass::bert2, wide, false}, {BertClass::bert3, 0.02, true},
        {BertClass::bert4, 0.02, false}, {BertClass::bert5, 0.02, true}, {BertClass::bert6, 0.02, false},
        {BertClass::bert7, 0.02, true}}) {
    const TemporalHead head(without_dropout(variant, 0.8), 31, kWidth, kClasses, 5);
    const FlatTensors& p = head.parameters();
    const std::string name(name_of(variant));
    EXPECT_NEAR(p.at("bert.clsToken").std().item<double>(), deviation, 0.25 * deviation) << name;
    if (variant != BertClass::bert6) {
      EXPECT_NEAR(p.at("bert.embedding.learnedPosition.pe").std().item<double>(), deviation, 0.1 * deviation) << name;
    }
    const at::Tensor weight = p.at("bert.transformer_blocks.0.attention.linear_layers.0.weight");
    const at::Tensor bias = p.at("bert.transformer_blocks.0.attention.linear_layers.0.bias");
    EXPECT_NEAR(weight.std().item<double>(), torch_start ? wide / std::sqrt(3.0) : 0.02, 0.002) << name;
    EXPECT_EQ(bias.abs().max().item<double>() == 0, !torch_start) << name;
    EXPECT_TRUE(p.at("bert.transformer_blocks.0.input_sublayer.norm.a_2").eq(1).all().item<bool>()) << name;
    EXPECT_TRUE(p.at("fc_action.bias").eq(0).all().item<bool>()) << name;
    EXPECT_LE(p.at("fc_action.weight").abs().max().item<double>(), std::sqrt(6.0 / (kWidth + kClasses))) << name;
  }
}

TEST(BertStartTest, AnotherLayerChangesNoOtherWeight) {
  TemporalHeadOptions options = without_dropout(BertClass::bert5, 0.8);
  const TemporalHead one(options, kTokens, 8, kClasses, 5);
  options.bert.layers = 2;
  const TemporalHead two(options, kTokens, 8, kClasses, 5);
  for (const auto& [name, tensor] : one.parameters().named()) EXPECT_TRUE(tensor.equal(two.parameters().at(name))) << name;
  EXPECT_FALSE(two.parameters().at("bert.transformer_blocks.0.feed_forward.w_1.weight").equal(
      two.parameters().at("bert.transformer_blocks.1.feed_forward.w_1.weight")));
}

TEST(ReductionTest, OverTimeIsTheCentreOfTheVolumeWhereThereIsNoImage) {
  TemporalHeadOptions options = without_dropout(BertClass::bert5, 0.8);
  options.reduction = {.kind = ReductionKind::bottleneck, .kernel = ReductionKernel::volume, .width = 4, .groups = 2};
  const TemporalHead volume(options, kTokens, 6, kClasses, 5);
  options.reduction.kernel = ReductionKernel::time;
  const TemporalHead time(options, kTokens, 6, kClasses, 6);
  {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : time.parameters().named()) {
      const at::Tensor from = volume.parameters().at(name);
      tensor.copy_(name == "mapper.conv2.weight" ? from.slice(3, 1, 2).slice(4, 1, 2) : from);
    }
  }
  const at::Tensor x = random_tensor({kRows, kTokens, 6}, 1, at::kFloat);
  EXPECT_TRUE(time.forward(x, HeadPass::evaluation()).allclose(volume.forward(x, HeadPass::evaluation()), 1e-5, 1e-6));
}

TEST(TemporalHeadTest, NamesEveryProblemOfItsOptions) {
  TemporalHeadOptions options;
  options.bert.heads = 3;
  options.bert.keep = 1.5;
  options.classifier_dropout = 1;
  try {
    make_temporal_head(options, 4, 512, 0, 1);
    FAIL() << "it was built";
  } catch (const ModelError& error) {
    EXPECT_THAT(error.what(), ::testing::AllOf(::testing::HasSubstr("temporal head: classes: expected 1 to 1000000, got 0"),
                                               ::testing::HasSubstr("heads: expected a divisor of the width of the tokens, 512, got 3"),
                                               ::testing::HasSubstr("keep: expected a probability in [0, 1], got 1.5"),
                                               ::testing::HasSubstr("classifier_dropout: expected a probability in [0, 1), got 1.0")));
  }
}

TEST(TemporalHeadTest, RefusesTokensOfAnotherShape) {
  const TemporalHead head(without_dropout(BertClass::bert5, 0.8), kTokens, 4, kClasses, 5);
  try {
    head.forward(at::ones({2, kTokens + 1, 4}), HeadPass::evaluation());
    FAIL() << "it was taken";
  } catch (const ModelError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("expected tokens [B, 3, 4] or features [B, 4, time, height, width], got [2, 4, 4]"));
  }
}

TEST(TemporalHeadTest, NamesAnUnknownVariant) {
  const nlohmann::json document{{"bert", {{"variant", "BERT10"}}}, {"reduction", {{"branches", {1, 2}}}}};
  JsonProblems problems;
  JsonReader reader(document, "head.json", problems);
  TemporalHeadOptions::read(reader);
  ASSERT_EQ(problems.list().size(), 2U);
  EXPECT_THAT(problems.list()[0], ::testing::HasSubstr("head.json: /bert/variant: expected one of BERT, BERT2"));
  EXPECT_THAT(problems.list()[1], ::testing::HasSubstr("head.json: /reduction/branches: expected a list of 6 numbers"));
}

}  // namespace
}  // namespace fusion
