#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/enum_names.h"
#include "base/json_reader.h"
#include "model/bert.h"
#include "model/head_pass.h"
#include "model/reduction.h"

namespace fusion {

/// How T tokens become one vector that a classifier reads.
enum class TemporalKind {
  bert,           ///< the output at the classification token (model/bert.h)
  mean,           ///< their mean
  concatenation,  ///< all of them side by side, channel-major (index c T + t)
  lstm,           ///< the last output of an LSTM
  non_local       ///< a non-local block over all places, then concatenation
};
template <>
struct EnumNames<TemporalKind> {
  static constexpr std::array<std::pair<TemporalKind, std::string_view>, 5> kTable{{{TemporalKind::bert, "bert"},
                                                                              {TemporalKind::mean, "mean"},
                                                                              {TemporalKind::concatenation, "concatenation"},
                                                                              {TemporalKind::lstm, "lstm"},
                                                                              {TemporalKind::non_local, "non_local"}}};
  static constexpr std::string_view kWhat = "temporal head";
};

struct TemporalHeadOptions {
  TemporalKind kind = TemporalKind::bert;
  BertOptions bert;                 ///< bert only
  double classifier_dropout = 0.8;  ///< probability of zero, on what the classifier reads
  std::int64_t hidden = 0;          ///< width of the layer before the classifier (concatenation 1550, non_local 1000) or of the LSTM (450);
                                    ///< 0: these, the reference's
  std::int64_t lstm_layers = 2;
  std::int64_t affinity_width = 0;  ///< non_local: inner width of the block; 0: that of the tokens, as in the reference
  bool normalise = false;           ///< tokens are divided by their length first, as the reference's I3D models do
  ReductionOptions reduction;       ///< a block before everything else

  bool operator==(const TemporalHeadOptions&) const = default;

  /// `hidden` with its default filled in; 0 for heads without such a layer.
  std::int64_t hidden_width() const;
  /// What is wrong with them, a sentence each; empty if nothing.
  std::vector<std::string> problems(std::int64_t tokens, std::int64_t width, std::int64_t classes) const;
  nlohmann::json to_json() const;
  /// Reads the members that are there; the others keep their defaults. Ranges that need the tokens' sizes are left to `problems`.
  static TemporalHeadOptions read(JsonReader& reader);
};

/// A step of a head that turns tokens [B, T, C] into [B, S].
class TokenSummary {
 public:
  virtual ~TokenSummary() = default;
  /// Declares its tensors and returns S.
  virtual std::int64_t declare(TensorPlan& plan, std::int64_t tokens, std::int64_t width, MaskPlaces& places) = 0;
  /// `sequence`, if given, receives the outputs at all tokens, [B, T + 1, C], where the step makes some.
  virtual at::Tensor forward(const at::Tensor& tokens, const HeadPass& pass, at::Tensor* sequence) const = 0;
};

class NonLocalBlock;

/// A classifier over T tokens of width C, with the authors' names for its tensors:
///
///     x      = mapper(x)                      reduction, if asked for; NLB(x) for non_local
///     tokens = mean of x over its image       nothing to do for tokens; divided by their length with `normalise`
///     s      = summary(tokens)                see TemporalKind; [B, S]
///     logits = fc_action(linear(drop(s)))     linear: concatenation and non_local only, without a non-linearity, as in the reference
///
/// fc_action starts Xavier uniform with bias 0, everything else as in the reference. T is fixed: shorter clips must be filled up by the
/// caller. Not thread-safe. Neither copied nor moved: parts hold tensors by place.
class TemporalHead {
 public:
  /// What passed on its way.
  struct Trace {
    at::Tensor tokens;    ///< [B, T, C] as the summary sees them
    at::Tensor sequence;  ///< bert only: [B, T + 1, C]
  };

  /// Throws ModelError with a sentence for each problem of the options.
  TemporalHead(const TemporalHeadOptions& options, std::int64_t tokens, std::int64_t width, std::int64_t classes, std::uint64_t seed,
               const at::TensorOptions& tensors = {});
  ~TemporalHead();
  TemporalHead(const TemporalHead&) = delete;
  TemporalHead& operator=(const TemporalHead&) = delete;

  /// x: tokens [B, T, C], or features that still have an image, [B, C, T', H, W]; those are averaged over space (and to T time steps,
  /// adaptively, if T' is another) behind the reduction and the non-local block. Returns logits [B, classes].
  at::Tensor forward(const at::Tensor& x, const HeadPass& pass, Trace* trace = nullptr) const;

  const TemporalHeadOptions& options() const { return options_; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t width() const { return width_; }
  FlatTensors& parameters() { return made_.parameters; }
  const FlatTensors& parameters() const { return made_.parameters; }
  FlatTensors& buffers() { return made_.buffers; }
  const FlatTensors& buffers() const { return made_.buffers; }

 private:
  at::Tensor tokens_of(const at::Tensor& x, bool training) const;

  TemporalHeadOptions options_;
  std::int64_t tokens_, width_;
  Reduction mapper_;
  std::unique_ptr<NonLocalBlock> non_local_;
  std::unique_ptr<TokenSummary> summary_;
  LinearLayer linear_, classifier_;
  std::uint32_t classifier_place_ = 0;
  TensorPlan::Made made_;
};

/// The head that the options ask for, over T tokens of width C. Initial weights come from `seed`; `tensors` gives device and floating
/// type (float where it says nothing). Throws ModelError.
std::unique_ptr<TemporalHead> make_temporal_head(const TemporalHeadOptions& options, std::int64_t tokens, std::int64_t width,
                                                 std::int64_t classes, std::uint64_t seed, const at::TensorOptions& tensors = {});

}  // namespace fusion
