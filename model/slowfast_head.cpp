#include "model/slowfast_head.h"

#include <ATen/ops/adaptive_avg_pool3d.h>
#include <ATen/ops/cat.h>

#include "base/error.h"

namespace fusion {
namespace {

/// [B, C, time, H, W] to [B, tokens, C].
at::Tensor pool(const at::Tensor& x, std::int64_t tokens) {
  return at::adaptive_avg_pool3d(x, {tokens, 1, 1}).flatten(2).transpose(1, 2).contiguous();
}

void check_features(const at::Tensor& x, std::int64_t channels, const char* pathway) {
  if (x.dim() == 5 && x.size(1) == channels) return;
  throw ModelError(std::string("SlowFast head: ") + pathway + " features: expected [B, " + std::to_string(channels) +
                   ", time, height, width], got " + std::to_string(x.dim()) + " dimensions" +
                   (x.dim() > 1 ? " with " + std::to_string(x.size(1)) + " channels" : ""));
}

}  // namespace

std::vector<std::string> SlowFastHeadOptions::problems(std::int64_t classes) const {
  const std::string subject = "SlowFast head";
  std::vector<std::string> found = slow_reduction.problems(subject + ": slow");
  const auto add = [&](const std::vector<std::string>& more) { found.insert(found.end(), more.begin(), more.end()); };
  add(fast_reduction.problems(subject + ": fast"));
  const auto positive = [&](const char* what, std::int64_t value) {
    if (value < 1) found.push_back(subject + ": " + what + ": expected at least 1, got " + std::to_string(value));
  };
  positive("classes", classes);
  positive("slow_channels", slow_channels);
  positive("fast_channels", fast_channels);
  if (!(classifier_dropout >= 0 && classifier_dropout < 1)) {
    found.push_back(subject + ": classifier_dropout: expected a probability in [0, 1), got " + std::to_string(classifier_dropout));
  }
  if (bert.variant == BertClass::bert5_both) found.push_back(subject + ": bert: BERT5_BOTH is not among this head's variants");
  const std::int64_t slow = slow_reduction.width_after(slow_channels), fast = fast_reduction.width_after(fast_channels);
  if (fusion == PathwayFusion::early) {
    add(bert.problems(slow_tokens, slow + fast, subject + ": bert"));
  } else {
    add(bert.problems(slow_tokens, slow, subject + ": slow bert"));
    add(bert.problems(fast_tokens, fast, subject + ": fast bert"));
  }
  return found;
}

SlowFastHead::SlowFastHead(const SlowFastHeadOptions& options, std::int64_t classes, std::uint64_t seed,
                           const at::TensorOptions& tensors)
    : options_(options) {
  const std::vector<std::string> problems = options.problems(classes);
  if (!problems.empty()) throw ModelError(join_problems(problems));
  TensorPlan plan;
  MaskPlaces places;
  const bool late = options.fusion == PathwayFusion::late;
  const std::int64_t slow = options.slow_reduction.width_after(options.slow_channels);
  const std::int64_t fast = options.fast_reduction.width_after(options.fast_channels);
  slow_mapper_.declare(plan, late ? "mapper." : "mapper_slow.", options.slow_channels, options.slow_reduction);
  fast_mapper_.declare(plan, "mapper_fast.", options.fast_channels, options.fast_reduction);
  if (late) {
    fast_bert_.declare(plan, "bert_fast.", options.bert, options.fast_tokens, fast, places);
    slow_bert_.declare(plan, "bert_slow.", options.bert, options.slow_tokens, slow, places);
  } else {
    slow_bert_.declare(plan, "bert.", options.bert, options.slow_tokens, slow + fast, places);
  }
  classifier_place_ = places.next();
  classifier_.declare(plan, "fc_action", slow + fast, classes, LinearLayer::Start::xavier);
  made_ = plan.make(seed, tensors);
}

at::Tensor SlowFastHead::forward(const at::Tensor& slow, const at::Tensor& fast, const HeadPass& pass, Trace* trace) const {
  check_features(slow, options_.slow_channels, "slow");
  check_features(fast, options_.fast_channels, "fast");
  const bool late = options_.fusion == PathwayFusion::late;
  const at::Tensor slow_tokens = pool(slow_mapper_.forward(slow, pass.training), options_.slow_tokens);  // [B, T, C]
  const at::Tensor fast_tokens =
      pool(fast_mapper_.forward(fast, pass.training), late ? options_.fast_tokens : options_.slow_tokens);
  at::Tensor summary;
  Trace seen;
  if (late) {
    seen.tokens = fast_tokens;
    seen.sequence = fast_bert_.forward(fast_tokens, pass);
    const at::Tensor slow_sequence = slow_bert_.forward(slow_tokens, pass);
    summary = at::cat({slow_sequence.select(1, 0), seen.sequence.select(1, 0)}, 1);  // [B, slow + fast]
  } else {
    seen.tokens = at::cat({slow_tokens, fast_tokens}, 2);  // [B, T, slow + fast]
    seen.sequence = slow_bert_.forward(seen.tokens, pass);
    summary = seen.sequence.select(1, 0);
  }
  if (trace) *trace = seen;
  return classifier_.forward(dropout(summary, options_.classifier_dropout, classifier_place_, pass));
}

}  // namespace fusion
