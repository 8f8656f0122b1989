#include "model/temporal_head.h"

#include <ATen/ops/adaptive_avg_pool3d.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/token_summaries.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

constexpr std::int64_t kMaxWidth = 65536;

bool has_hidden_layer(TemporalKind kind) { return kind == TemporalKind::concatenation || kind == TemporalKind::non_local; }

std::string shape_of(const at::Tensor& x) {
  std::string text;
  for (const std::int64_t n : x.sizes()) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "[" + text + "]";
}

void read_reduction(JsonReader reader, ReductionOptions& options) {
  options.kind = reader.choice("kind", std::optional(options.kind));
  options.kernel = reader.choice("kernel", std::optional(options.kernel));
  options.width = reader.integer("width", 2, kMaxWidth, options.width);
  options.inner = reader.integer("inner", 0, kMaxWidth, options.inner);
  options.groups = reader.integer("groups", 1, kMaxWidth, options.groups);
  if (const nlohmann::json* const branches = reader.raw("branches")) {
    bool right = branches->is_array() && branches->size() == options.branches.size();
    for (const auto& channels : *branches) right = right && channels.is_number_integer() && channels >= 1 && channels <= kMaxWidth;
    if (right) {
      options.branches = branches->get<std::array<std::int64_t, 6>>();
    } else {
      reader.fail("branches", "expected a list of 6 numbers of channels, got " + branches->dump());
    }
  }
  reader.finish();
}

void read_bert(JsonReader reader, BertOptions& options) {
  options.variant = reader.choice("variant", std::optional(options.variant));
  options.heads = reader.integer("heads", 1, 256, options.heads);
  options.layers = reader.integer("layers", 1, 64, options.layers);
  options.keep = reader.number("keep", 0, 1, options.keep);
  options.dropout = reader.number("dropout", 0, 0.999, options.dropout);
  options.pair_rule = reader.choice("pair_rule", std::optional(options.pair_rule));
  reader.finish();
}

}  // namespace

std::int64_t TemporalHeadOptions::hidden_width() const {
  if (hidden != 0) return hidden;
  switch (kind) {
    case TemporalKind::concatenation: return 1550;
    case TemporalKind::non_local: return 1000;
    case TemporalKind::lstm: return 450;
    default: return 0;
  }
}

std::vector<std::string> TemporalHeadOptions::problems(std::int64_t tokens, std::int64_t width, std::int64_t classes) const {
  std::vector<std::string> found = reduction.problems("temporal head");
  const auto range = [&](const std::string& what, std::int64_t value, std::int64_t min, std::int64_t max) {
    if (value >= min && value <= max) return;
    found.push_back("temporal head: " + what + ": expected " + std::to_string(min) + " to " + std::to_string(max) + ", got " +
                    std::to_string(value));
  };
  range("classes", classes, 1, 1'000'000);
  range("hidden", hidden, 0, kMaxWidth);
  range("lstm_layers", lstm_layers, 1, 16);
  range("affinity_width", affinity_width, 0, kMaxWidth);
  if (!(classifier_dropout >= 0 && classifier_dropout < 1)) {
    found.push_back("temporal head: classifier_dropout: expected a probability in [0, 1), got " + std::to_string(classifier_dropout));
  }
  if (kind != TemporalKind::bert) {
    range("tokens", tokens, 1, 4096);
    range("width of the tokens", width, 1, kMaxWidth);
    return found;
  }
  std::int64_t inside = reduction.width_after(width);
  if (bert.variant == BertClass::bert5_both) {
    if (inside % 2 != 0) found.push_back("temporal head: BERT5_BOTH needs tokens of an even width, got " + std::to_string(inside));
    inside /= 2;
  }
  for (std::string& problem : bert.problems(tokens, inside, "temporal head: bert")) found.push_back(std::move(problem));
  return found;
}

nlohmann::json TemporalHeadOptions::to_json() const {
  nlohmann::json json{{"kind", name_of(kind)},         {"classifier_dropout", classifier_dropout},
                      {"hidden", hidden},              {"lstm_layers", lstm_layers},
                      {"normalise", normalise},        {"affinity_width", affinity_width}};
  json["bert"] = {{"variant", name_of(bert.variant)}, {"heads", bert.heads},     {"layers", bert.layers},
                  {"keep", bert.keep},                {"dropout", bert.dropout}, {"pair_rule", name_of(bert.pair_rule)}};
  json["reduction"] = {{"kind", name_of(reduction.kind)},
                       {"kernel", name_of(reduction.kernel)},
                       {"width", reduction.width},
                       {"inner", reduction.inner},
                       {"groups", reduction.groups},
                       {"branches", reduction.branches}};
  return json;
}

TemporalHeadOptions TemporalHeadOptions::read(JsonReader& reader) {
  TemporalHeadOptions options;
  options.kind = reader.choice("kind", std::optional(options.kind));
  options.classifier_dropout = reader.number("classifier_dropout", 0, 0.999, options.classifier_dropout);
  options.hidden = reader.integer("hidden", 0, kMaxWidth, options.hidden);
  options.lstm_layers = reader.integer("lstm_layers", 1, 16, options.lstm_layers);
  options.affinity_width = reader.integer("affinity_width", 0, kMaxWidth, options.affinity_width);
  options.normalise = reader.boolean("normalise", options.normalise);
  read_bert(reader.object("bert"), options.bert);
  read_reduction(reader.object("reduction"), options.reduction);
  reader.finish();
  return options;
}

TemporalHead::TemporalHead(const TemporalHeadOptions& options, std::int64_t tokens, std::int64_t width, std::int64_t classes,
                           std::uint64_t seed, const at::TensorOptions& tensors)
    : options_(options), tokens_(tokens), width_(width), summary_(make_token_summary(options)) {
  const std::vector<std::string> problems = options.problems(tokens, width, classes);
  if (!problems.empty()) throw ModelError(join_problems(problems));
  TensorPlan plan;
  MaskPlaces places;
  mapper_.declare(plan, "mapper.", width, options.reduction);
  const std::int64_t inside = options.reduction.width_after(width);
  if (options.kind == TemporalKind::non_local) {
    non_local_ = std::make_unique<NonLocalBlock>();
    non_local_->declare(plan, "NLB.", inside, options.affinity_width == 0 ? inside : options.affinity_width);
  }
  std::int64_t read = summary_->declare(plan, tokens, inside, places);
  classifier_place_ = places.next();
  if (has_hidden_layer(options.kind)) {
    linear_.declare(plan, "linear", read, options.hidden_width(), LinearLayer::Start::torch);
    read = options.hidden_width();
  }
  classifier_.declare(plan, "fc_action", read, classes, LinearLayer::Start::xavier);
  made_ = plan.make(seed, tensors);
}

TemporalHead::~TemporalHead() = default;

at::Tensor TemporalHead::tokens_of(const at::Tensor& x, bool training) const {
  const bool flat = x.dim() == 3 && x.size(1) == tokens_ && x.size(2) == width_;
  if (!flat && !(x.dim() == 5 && x.size(1) == width_)) {
    const std::string c = std::to_string(width_), t = std::to_string(tokens_);
    throw ModelError("temporal head: expected tokens [B, " + t + ", " + c + "] or features [B, " + c + ", time, height, width], got " +
                     shape_of(x));
  }
  if (flat && options_.reduction.kind == ReductionKind::none && !non_local_) return x;
  at::Tensor y = flat ? x.transpose(1, 2).unsqueeze(3).unsqueeze(4) : x;  // [B, C, T, H, W]
  y = mapper_.forward(y, training);
  if (non_local_) y = non_local_->forward(y, training);
  if (!flat) y = at::adaptive_avg_pool3d(y, {tokens_, 1, 1});  // [B, C, T, 1, 1]
  return y.flatten(2).transpose(1, 2).contiguous();            // [B, T, C]
}

at::Tensor TemporalHead::forward(const at::Tensor& x, const HeadPass& pass, Trace* trace) const {
  at::Tensor tokens = tokens_of(x, pass.training);
  if (options_.normalise) tokens = l2_normalise(tokens);
  if (trace) trace->tokens = tokens;
  at::Tensor summary = summary_->forward(tokens, pass, trace ? &trace->sequence : nullptr);  // [B, S]
  summary = dropout(summary, options_.classifier_dropout, classifier_place_, pass);
  if (linear_.weight.defined()) summary = linear_.forward(summary);
  return classifier_.forward(summary);  // [B, classes]
}

std::unique_ptr<TemporalHead> make_temporal_head(const TemporalHeadOptions& options, std::int64_t tokens, std::int64_t width,
                                                 std::int64_t classes, std::uint64_t seed, const at::TensorOptions& tensors) {
  return std::make_unique<TemporalHead>(options, tokens, width, classes, seed, tensors);
}

}  // namespace fusion
