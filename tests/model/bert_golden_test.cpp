// The BERT head, its relatives and their optimiser against the authors' own numbers.
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/where.h>

#include "model/adam.h"
#include "model/bert.h"
#include "model/device.h"
#include "model/slowfast_head.h"
#include "model/temporal_head.h"
#include "model/torch_compat.h"
#include "model/transformer.h"
#include "tests/model/golden_cases.h"

namespace fusion {
namespace {

using golden::Case;
using golden::expect_close;
using golden::Tolerance;

Tolerance tolerance_of(const Case& given) { return Tolerance::read(given.facts.at("tolerance")); }
const nlohmann::json& config_of(const Case& given) { return given.facts.at("config"); }

/// A module with the case's weights. Its tensors are declared below "w.", as they are called in the file.
template <typename Module>
struct Loaded {
  Module module;
  TensorPlan::Made made;

  /// `declare(module, plan, places)`.
  template <typename Declare>
  Loaded(const Case& given, Declare declare) {
    TensorPlan plan;
    MaskPlaces places;
    declare(module, plan, places);
    made = plan.make(0, {});
    load_tensors(given.tensors, made.parameters.named());
    load_tensors(given.tensors, made.buffers.named());
  }
};

template <typename Network>
void load_network(const Case& given, Network& network) {
  load_tensors(given.tensors, network.parameters().named(), "w.");
  load_tensors(given.tensors, network.buffers().named(), "w.");
}

/// Of every parameter called "w." + name or name that the case has a gradient of; at least one.
void expect_gradients(const Case& given, const NamedTensors& parameters, const std::string& prefix) {
  int checked = 0;
  for (const auto& [name, parameter] : parameters) {
    const std::string gradient = "grad." + name.substr(prefix.size());
    ASSERT_TRUE(given.has(gradient)) << gradient;
    expect_close(parameter.grad(), given.tensor(gradient), tolerance_of(given), gradient);
    ++checked;
  }
  EXPECT_GT(checked, 0);
}

BertOptions bert_options(const nlohmann::json& config, const std::string& variant) {
  BertOptions options;
  options.variant = enum_from_name<BertClass>(variant).value();
  options.heads = config.at("heads");
  options.layers = config.at("layers");
  options.keep = config.value("mask_prob", options.keep);
  options.dropout = 0;
  options.pair_rule = PairRule::reference;
  return options;
}

std::int64_t rows_of(const Case& given, const std::string& name) { return given.tensors.at(name).shape.at(0); }

void gelu(const Case& given) {
  const at::Tensor x = given.tensor("in.x").set_requires_grad(true);
  const at::Tensor y = gelu_tanh(x);
  expect_close(y, given.tensor("out.y"), tolerance_of(given), "y");
  y.sum().backward();
  expect_close(x.grad(), given.tensor("grad.in.x"), tolerance_of(given), "gradient");
}

void layer_norm(const Case& given) {
  const at::Tensor x = given.tensor("in.x").set_requires_grad(true);
  Loaded<ReferenceLayerNorm> norm(given, [&](auto& module, auto& plan, auto&) { module.declare(plan, "w.", x.size(-1)); });
  const at::Tensor y = norm.module.forward(x);
  expect_close(y, given.tensor("out.y"), tolerance_of(given), "y");
  y.mul(given.tensor("in.cotangent")).sum().backward();
  expect_close(x.grad(), given.tensor("grad.in.x"), tolerance_of(given), "gradient of x");
  expect_gradients(given, norm.made.parameters.named(), "w.");
}

TransformerOptions block_options(const nlohmann::json& config) {
  const std::int64_t hidden = config.at("hidden");
  return {hidden, config.at("heads"), config.value("ffn", 4 * hidden), 0.0, LinearLayer::Start::torch};
}

void attention(const Case& given) {
  Loaded<MultiHeadAttention> loaded(
      given, [&](auto& module, auto& plan, auto& places) { module.declare(plan, "w.", block_options(config_of(given)), places); });
  const at::Tensor q = given.tensor("in.q"), k = given.tensor("in.k"), v = given.tensor("in.v");
  const HeadPass pass = HeadPass::evaluation();
  expect_close(loaded.module.forward(q, k, v, {}, pass), given.tensor("out.unmasked"), tolerance_of(given), "unmasked");
  expect_close(loaded.module.forward(q, k, v, given.tensor("in.mask"), pass), given.tensor("out.masked"), tolerance_of(given), "masked");
}

void block(const Case& given) {
  Loaded<TransformerBlock> loaded(
      given, [&](auto& module, auto& plan, auto& places) { module.declare(plan, "w.", block_options(config_of(given)), places); });
  const at::Tensor y = loaded.module.forward(given.tensor("in.x"), given.tensor("in.mask"), HeadPass::evaluation());
  expect_close(y, given.tensor("out.y"), tolerance_of(given), "y");
}

void embedding(const Case& given) {
  static const std::map<std::string, BertClass> kVariants{{"BERTEmbedding", BertClass::bert6},
                                                            {"BERTEmbedding2", BertClass::bert5},
                                                            {"BERTEmbedding3", BertClass::bert2},
                                                            {"BERTEmbedding4", BertClass::bert}};
  const auto& config = config_of(given);
  const auto declare = [&](auto& module, auto& plan, auto& places) {
    module.declare(plan, "w.", kVariants.at(config.at("cls")), config.at("max_len"), config.at("d"), 0.0, places);
  };
  TensorPlan plan;
  MaskPlaces places;
  BertEmbedding own;
  declare(own, plan, places);
  const TensorPlan::Made made = plan.make(0, {});
  for (const auto& [name, table] : made.buffers.named()) {  // the sinusoid is computed, not learned
    expect_close(table, given.tensor(name), tolerance_of(given), "computed " + name);
  }
  Loaded<BertEmbedding> loaded(given, declare);
  expect_close(loaded.module.forward(given.tensor("in.x"), HeadPass::evaluation()), given.tensor("out.y"), tolerance_of(given), "y");
}

Loaded<Bert> load_bert(const Case& given) {
  const auto& config = config_of(given);
  return Loaded<Bert>(given, [&](auto& module, auto& plan, auto& places) {
    module.declare(plan, "w.", bert_options(config, config.at("cls")), config.at("T"), config.at("hidden"), places);
  });
}

void bert(const Case& given) {
  const Loaded<Bert> loaded = load_bert(given);
  const HeadPass pass = HeadPass::evaluation();
  const at::Tensor x = given.tensor("in.x");
  const at::Tensor sequence = loaded.module.forward(x, pass);
  expect_close(sequence, given.tensor("out.sequence"), tolerance_of(given), "sequence");
  expect_close(sequence.select(1, 0), given.tensor("out.cls"), tolerance_of(given), "cls");
  expect_close(sequence.narrow(1, 1, x.size(1)), given.tensor("out.tokens"), tolerance_of(given), "tokens");
  if (given.has("aux.after_embedding")) {
    expect_close(loaded.module.embed(x, {}, pass), given.tensor("aux.after_embedding"), tolerance_of(given), "after_embedding");
  }
}

void masked_bert(const Case& given) {
  const Loaded<Bert> loaded = load_bert(given);
  HeadPass pass = HeadPass::train(0, 0);
  pass.visible = given.tensor("aux.mask");
  const at::Tensor x = given.tensor("in.x").set_requires_grad(true);
  const at::Tensor sequence = loaded.module.forward(x, pass);
  expect_close(sequence, given.tensor("out.sequence"), tolerance_of(given), "sequence");
  const at::Tensor loss = sequence.mul(given.tensor("in.cotangent")).sum();
  expect_close(loss.reshape({1}), given.tensor("out.loss"), tolerance_of(given), "loss");
  loss.backward();
  expect_close(x.grad(), given.tensor("grad.in.x"), tolerance_of(given), "gradient of x");
  expect_gradients(given, loaded.made.parameters.named(), "w.");
}

void bert_pair(const Case& given) {
  const auto& config = config_of(given);
  const Loaded<BertPair> loaded(given, [&](auto& module, auto& plan, auto& places) {
    module.declare(plan, "w.", bert_options(config, "BERT5_BOTH"), config.at("T"), config.at("hidden"), places);
  });
  const BertPair::Pair out = loaded.module.forward({given.tensor("in.rgb"), given.tensor("in.flow")}, HeadPass::evaluation());
  expect_close(out[0], given.tensor("out.rgb"), tolerance_of(given), "rgb");
  expect_close(out[1], given.tensor("out.flow"), tolerance_of(given), "flow");
}

/// A head of this kind over in.features, with the case's weights.
std::unique_ptr<TemporalHead> load_head(const Case& given, const TemporalHeadOptions& options) {
  const auto& config = config_of(given);
  const std::int64_t channels = given.tensors.at("in.features").shape.at(1);
  auto head = make_temporal_head(options, config.at("T"), channels, config.at("classes"), 0);
  load_network(given, *head);
  return head;
}

void plain_head(const Case& given, TemporalKind kind) {
  const auto& config = config_of(given);
  TemporalHeadOptions options;
  options.kind = kind;
  options.hidden = kind == TemporalKind::lstm ? config.at("hidden").get<std::int64_t>() : config.value("linear", std::int64_t{0});
  options.lstm_layers = config.value("layers", options.lstm_layers);
  options.affinity_width = config.value("inter", options.affinity_width);
  const auto head = load_head(given, options);
  TemporalHead::Trace trace;
  const at::Tensor features = given.tensor("in.features");
  const at::Tensor logits = head->forward(features, HeadPass::evaluation(), &trace);
  expect_close(logits, given.tensor("out.logits"), tolerance_of(given), "logits");
  if (given.has("aux.nlb_out")) {
    const at::Tensor tokens = given.tensor("aux.nlb_out").mean(at::IntArrayRef{3, 4}).transpose(1, 2);
    expect_close(trace.tokens, tokens, tolerance_of(given), "behind the non-local block");
  } else if (kind != TemporalKind::non_local) {  // the same from tokens that were averaged before
    const at::Tensor tokens = features.mean(at::IntArrayRef{3, 4}).transpose(1, 2).contiguous();
    expect_close(head->forward(tokens, HeadPass::evaluation()), logits, tolerance_of(given), "logits from tokens");
  }
}

/// A bottleneck as its weights say, below `prefix`.
Bottleneck::Options bottleneck_options(const Case& given, const std::string& prefix) {
  const auto& first = given.tensors.at(prefix + "conv1.weight").shape;
  const auto& second = given.tensors.at(prefix + "conv2.weight").shape;
  Bottleneck::Options options;
  options.in = first.at(1);
  options.inner = first.at(0);
  options.out = given.tensors.at(prefix + "conv3.weight").shape.at(0);
  options.groups = options.inner / second.at(1);
  options.shortcut = given.has(prefix + "downsample.0.weight");
  return options;
}

ReductionOptions bottleneck_reduction(const Case& given, const std::string& prefix) {
  const Bottleneck::Options block = bottleneck_options(given, prefix);
  ReductionOptions options;
  options.kind = ReductionKind::bottleneck;
  options.kernel = ReductionKernel::volume;
  options.width = block.out;
  options.inner = block.inner;
  options.groups = block.groups;
  return options;
}

ReductionOptions inception_reduction(const Case& given, const std::string& prefix) {
  ReductionOptions options;
  options.kind = ReductionKind::inception;
  options.kernel = ReductionKernel::volume;
  constexpr std::array<const char*, 6> kNames{"b0", "b1a", "b1b", "b2a", "b2b", "b3b"};
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    options.branches[i] = given.tensors.at(prefix + kNames[i] + ".conv3d.weight").shape.at(0);
  }
  return options;
}

void reduction(const Case& given) {
  const bool inception = given.has("w.b0.conv3d.weight");
  const ReductionOptions options = inception ? inception_reduction(given, "w.") : bottleneck_reduction(given, "w.");
  const at::Tensor x = given.tensor("in.x");
  const Loaded<Reduction> loaded(given, [&](auto& module, auto& plan, auto&) { module.declare(plan, "w.", x.size(1), options); });
  expect_close(loaded.module.forward(x, false), given.tensor("out.y"), tolerance_of(given), "y");
}

/// The side outputs of the reference's models: L2-normalised copies, or what passed as it is.
void expect_side_outputs(const Case& given, const at::Tensor& tokens, const at::Tensor& sequence, bool normalised) {
  const at::Tensor outputs = sequence.narrow(1, 1, sequence.size(1) - 1);
  expect_close(normalised ? l2_normalise(tokens) : tokens, given.tensor("out.input_vectors"), tolerance_of(given), "input_vectors");
  expect_close(normalised ? l2_normalise(outputs) : outputs, given.tensor("out.sequence_out"), tolerance_of(given), "sequence_out");
}

TemporalHeadOptions model_options(const Case& given, const std::string& variant) {
  TemporalHeadOptions options;
  options.bert = bert_options(config_of(given), variant);
  options.classifier_dropout = 0;
  return options;
}

void check_model(const Case& given, const TemporalHead& head, const at::Tensor& features, bool normalised) {
  TemporalHead::Trace trace;
  const at::Tensor logits = head.forward(features, HeadPass::evaluation(), &trace);
  expect_close(logits, given.tensor("out.logits"), tolerance_of(given), "logits");
  expect_side_outputs(given, trace.tokens, trace.sequence, normalised);
}

void resnext_frab(const Case& given) {
  TemporalHeadOptions options = model_options(given, "BERT5");
  options.reduction = bottleneck_reduction(given, "w.mapper.");
  check_model(given, *load_head(given, options), given.tensor("in.features"), true);
}

/// The last layer of the backbone with its reducing block, then the head.
void resnext_frmb(const Case& given) {
  at::Tensor x = given.tensor("in.features");
  for (int i = 0; given.has("w.features.7." + std::to_string(i) + ".conv1.weight"); ++i) {
    const std::string prefix = "w.features.7." + std::to_string(i) + ".";
    const Loaded<Bottleneck> loaded(
        given, [&](auto& module, auto& plan, auto&) { module.declare(plan, prefix, bottleneck_options(given, prefix)); });
    x = loaded.module.forward(x, false);
  }
  expect_close(x, given.tensor("aux.block_out"), tolerance_of(given), "block_out");
  const auto& config = config_of(given);
  TemporalHead head(model_options(given, "BERT5"), config.at("T"), config.at("hidden"), config.at("classes"), 0);
  load_network(given, head);
  check_model(given, head, x.detach(), true);
}

void i3d_frab(const Case& given) {
  TemporalHeadOptions options = model_options(given, "BERT2");
  options.reduction = inception_reduction(given, "w.mapper.");
  options.normalise = true;
  check_model(given, *load_head(given, options), given.tensor("in.features"), false);
}

void slowfast(const Case& given, PathwayFusion fusion) {
  const auto& config = config_of(given);
  const bool late = fusion == PathwayFusion::late;
  const at::Tensor slow = given.tensor("in.slow"), fast = given.tensor("in.fast");
  SlowFastHeadOptions options;
  options.fusion = fusion;
  options.slow_channels = slow.size(1);
  options.fast_channels = fast.size(1);
  options.slow_tokens = config.at(late ? "T_slow" : "T");
  if (late) options.fast_tokens = config.at("T_fast");
  options.slow_reduction = bottleneck_reduction(given, late ? "w.mapper." : "w.mapper_slow.");
  if (!late) options.fast_reduction = bottleneck_reduction(given, "w.mapper_fast.");
  options.bert = bert_options(config, "BERT5");
  SlowFastHead head(options, config.at("classes"), 0);
  load_network(given, head);
  SlowFastHead::Trace trace;
  const at::Tensor logits = head.forward(slow, fast, HeadPass::evaluation(), &trace);
  expect_close(logits, given.tensor("out.logits"), tolerance_of(given), "logits");
  expect_side_outputs(given, trace.tokens, trace.sequence, !late);
}

AdamOptions adamw_options(const nlohmann::json& config) {
  AdamOptions options;
  options.beta1 = config.at("betas").at(0);
  options.beta2 = config.at("betas").at(1);
  options.eps = config.at("eps");
  options.weight_decay = config.at("weight_decay");
  options.decoupled = true;
  return options;
}

void adamw(const Case& given) {
  const auto& config = config_of(given);
  const at::Tensor parameter = given.tensor("in.p0").set_requires_grad(true);
  const at::Tensor gradients = given.tensor("in.grads"), expected = given.tensor("out.p");
  Adam adam({parameter}, adamw_options(config));
  for (std::int64_t step = 0; step < rows_of(given, "in.grads"); ++step) {
    parameter.mutable_grad() = gradients.select(0, step);
    adam.step(config.at("lr"));
    expect_close(parameter, expected.select(0, step), tolerance_of(given), "step " + std::to_string(step));
  }
}

/// The parameters after a step of AdamW. The first step moves an element by about the rate times the sign of its gradient, however small
/// that is; those of the keys' biases, for one, are zero but for rounding. So the step is checked twice: everywhere from the recorded
/// gradients, and from our own where a gradient is no noise.
void expect_adamw_step(const Case& given, const FlatTensors& parameters) {
  const auto& config = config_of(given).at("adamw");
  const at::Tensor before = parameters.snapshot();
  FlatTensors restorable = parameters;
  for (const bool recorded : {true, false}) {
    restorable.restore(before);
    std::vector<at::Tensor> own;
    for (const auto& [name, parameter] : parameters.named()) {
      own.push_back(parameter.grad());
      if (recorded) parameter.mutable_grad() = given.tensor("grad." + name);
    }
    Adam adam(parameters.tensors(), adamw_options(config));
    adam.step(config.at("lr"));
    int moved = 0;
    for (const auto& [name, parameter] : parameters.named()) {
      if (!given.has("aux.after_adamw." + name)) continue;
      const at::Tensor expected = given.tensor("aux.after_adamw." + name);
      const at::Tensor clear = given.tensor("grad." + name).abs().gt(recorded ? -1.0 : 1e-6);
      expect_close(at::where(clear, parameter.detach(), expected), expected, tolerance_of(given), name + " after a step");
      moved += clear.any().item<bool>() ? 1 : 0;
    }
    EXPECT_GT(moved, 0);
    for (std::size_t i = 0; i < own.size(); ++i) parameters.named()[i].second.mutable_grad() = own[i];
  }
}

void train_step(const Case& given) {
  TemporalHeadOptions options = model_options(given, "BERT5");
  options.reduction = bottleneck_reduction(given, "w.mapper.");
  const auto head = load_head(given, options);
  const at::Tensor features = given.tensor("in.features").set_requires_grad(true);
  const at::Tensor logits = head->forward(features, HeadPass::evaluation());
  expect_close(logits, given.tensor("out.logits"), tolerance_of(given), "logits");
  const at::Tensor loss = at::cross_entropy_loss(logits, given.tensor("in.target"));
  expect_close(loss.reshape({1}), given.tensor("out.loss"), tolerance_of(given), "loss");
  loss.backward();
  expect_close(features.grad(), given.tensor("grad.in.features"), tolerance_of(given), "gradient of features");
  expect_gradients(given, head->parameters().named(), "");
  expect_adamw_step(given, head->parameters());
}

/// Checks by the beginning of a case's name; the first that fits.
const std::vector<std::pair<std::string, std::function<void(const Case&)>>>& checks() {
  static const std::vector<std::pair<std::string, std::function<void(const Case&)>>> kChecks{
      {"head_masked_", masked_bert},
      {"head_BERT5_BOTH", bert_pair},
      {"head_BERT", bert},
      {"head_average", [](const Case& given) { plain_head(given, TemporalKind::mean); }},
      {"head_concatenation", [](const Case& given) { plain_head(given, TemporalKind::concatenation); }},
      {"head_lstm", [](const Case& given) { plain_head(given, TemporalKind::lstm); }},
      {"head_nlb_concatenation", [](const Case& given) { plain_head(given, TemporalKind::non_local); }},
      {"embedding_", embedding},
      {"gelu_tanh", gelu},
      {"layer_norm", layer_norm},
      {"multihead_attention", attention},
      {"transformer_block", block},
      {"reduction_", reduction},
      {"model_resnext_FRAB", resnext_frab},
      {"model_resnext_FRMB", resnext_frmb},
      {"model_i3d_FRAB", i3d_frab},
      {"model_slowfast_FRAB_early", [](const Case& given) { slowfast(given, PathwayFusion::early); }},
      {"model_slowfast_FRAB_late", [](const Case& given) { slowfast(given, PathwayFusion::late); }},
      {"adamw_steps", adamw},
      {"train_step_resnext_FRAB", train_step}};
  return kChecks;
}

void check(const Case& given) {
  const std::string name = given.facts.value("name", given.sidecar.stem().string());
  for (const auto& [beginning, run] : checks()) {
    if (name.starts_with(beginning)) return run(given);
  }
  GTEST_SKIP() << "cases called \"" << name << "\" are not known; this program checks those of the BERT head";
}

}  // namespace
}  // namespace fusion

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  fusion::prepare_training_thread();
  fusion::golden::register_cases({{"bert", fusion::check}});
  return RUN_ALL_TESTS();
}
