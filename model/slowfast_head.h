#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/enum_names.h"
#include "model/bert.h"
#include "model/head_pass.h"
#include "model/reduction.h"

namespace fusion {

/// Where the two pathways of a SlowFast backbone meet.
enum class PathwayFusion {
  early,  ///< both reduced and pooled to the slow pathway's time steps, channels side by side, one BERT
  late    ///< a BERT per pathway, the classifier reads both classification tokens
};
template <>
struct EnumNames<PathwayFusion> {
  static constexpr std::array<std::pair<PathwayFusion, std::string_view>, 2> kTable{
      {{PathwayFusion::early, "early"}, {PathwayFusion::late, "late"}}};
  static constexpr std::string_view kWhat = "fusion of the pathways";
};

struct SlowFastHeadOptions {
  PathwayFusion fusion = PathwayFusion::late;
  std::int64_t slow_channels = 2048, fast_channels = 256;  ///< of the features that enter
  std::int64_t slow_tokens = 8, fast_tokens = 32;          ///< time steps; early fusion pools to `slow_tokens`
  /// Blocks before the pathways (FRAB); none where the backbone's own last block already reduces (FRMB). Late fusion has none on the fast
  /// pathway. The reference's have one group, 3x3x3 kernels and, early, 512 and 128 channels behind them.
  ReductionOptions slow_reduction, fast_reduction;
  BertOptions bert;
  double classifier_dropout = 0.8;

  std::vector<std::string> problems(std::int64_t classes) const;
};

/// The reference's heads on a SlowFast backbone. Tensors: late: mapper, bert_slow, bert_fast, fc_action (reads slow, then fast); early:
/// mapper_slow, mapper_fast, bert, fc_action. Each BERT draws masks of its own. Not thread-safe; neither copied nor moved.
class SlowFastHead {
 public:
  /// Of the fast pathway's BERT, or of the only one: the tokens it read and its sequence.
  struct Trace {
    at::Tensor tokens, sequence;
  };

  /// Throws ModelError with a sentence for each problem of the options.
  SlowFastHead(const SlowFastHeadOptions& options, std::int64_t classes, std::uint64_t seed, const at::TensorOptions& tensors = {});
  SlowFastHead(const SlowFastHead&) = delete;
  SlowFastHead& operator=(const SlowFastHead&) = delete;

  /// slow, fast: [B, channels, time, H, W]. Returns logits [B, classes].
  at::Tensor forward(const at::Tensor& slow, const at::Tensor& fast, const HeadPass& pass, Trace* trace = nullptr) const;

  FlatTensors& parameters() { return made_.parameters; }
  const FlatTensors& parameters() const { return made_.parameters; }
  FlatTensors& buffers() { return made_.buffers; }
  const FlatTensors& buffers() const { return made_.buffers; }

 private:
  SlowFastHeadOptions options_;
  Reduction slow_mapper_, fast_mapper_;
  Bert slow_bert_, fast_bert_;  ///< early fusion has the slow one only
  LinearLayer classifier_;
  std::uint32_t classifier_place_ = 0;
  TensorPlan::Made made_;
};

}  // namespace fusion
