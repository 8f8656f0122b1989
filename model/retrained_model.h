#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/fusion_network.h"
#include "model/mmtm.h"
#include "model/mmtm_plan.h"
#include "model/staged_backbone.h"
#include "model/temporal_head.h"
#include "space/architecture.h"
#include "space/dataset_spec.h"
#include "space/retraining_options.h"

namespace fusion {

/// One modality of a retrained model.
struct ModelModality {
  std::string name;
  std::vector<std::int64_t> tap_widths;
  std::vector<std::int64_t> row_shape;      ///< of one input; empty without a backbone
  std::optional<std::int64_t> time_axis;    ///< as declared (model/time_axis.h)
  std::unique_ptr<StagedBackbone> backbone; ///< none: the model reads stored taps only
};

/// How a batch passes.
struct ModelPass {
  bool training = false;           ///< of fusion part and head: dropout, batch statistics
  bool backbones_training = false; ///< of the backbones: batch statistics. Their weights get gradients if they are trainable
  std::uint64_t seed = 0;          ///< of everything drawn
  std::int64_t rows_seen = 0;      ///< rows that passed in training before this batch's first one
};

/// B rows, K classes.
struct ModelOutput {
  at::Tensor fusion;                ///< [B, K]
  std::vector<at::Tensor> logits;   ///< [m]: [B, K] of the backbone itself; undefined where it has none

  /// What a prediction is the argmax of: the sum with `multitask`, else `fusion`. [B, K], float32 at least.
  at::Tensor scores(bool multitask) const;
  /// Mean cross entropy of `fusion`; with `multitask` those of the backbones' logits are added. labels [B], int64.
  at::Tensor loss(const at::Tensor& labels, bool multitask) const;
};

/// A found configuration as one model: M backbones, what joins their streams, the fusion network and its head.
///
///   linear    the fusion network on the pooled taps (model/fusion_network.h)
///   mmtm      the same, and an MMTM at every found step (model/mmtm.h, model/mmtm_plan.h) scales maps that flow on through the later
///             stages; the fusion network reads the pooled maps as they are in the end
///   temporal  taps become tokens [B, T, C] (model/time_axis.h), T the smallest length among the taps that a step reads; modalities
///             without time are repeated. The fusion network runs per time step, on [B T, C], the head (model/temporal_head.h)
///             reads its last hidden layer [B, T, R] in place of the classifier
///
/// Tensors have stable names, in this order: fusion.<name> (temporal: without fusion.classifier), mmtm<k>.<name> for the module of step
/// k, head.<name>, backbone.<modality>.<name>. Initial values come from the seed: fusion network and head as documented there, module k
/// from mix(seed, k + 1).
///
/// Not thread-safe; one instance belongs to one trainer.
class RetrainedModel {
 public:
  /// Throws ModelError with a sentence: a head that needs backbones where there are none, a backbone that cannot run stage by stage, no
  /// modality with time for a temporal head, sizes that do not fit.
  RetrainedModel(const Architecture& architecture, const RetrainingOptions& options, std::int64_t classes,
                 std::vector<ModelModality> modalities, std::uint64_t seed, const at::TensorOptions& tensors = {});

  /// inputs[m]: [B, *row shape].
  ModelOutput forward(const std::vector<at::Tensor>& inputs, const ModelPass& pass) const;
  /// From stored features, for every head but mmtm: taps[m][i] [B, width], or for a temporal head tokens over time [B, T, width], T at
  /// least `tokens()`; without time [B, width] is repeated. Those that no step reads may be undefined, and logits[m] where there are none.
  ModelOutput forward_taps(const std::vector<std::vector<at::Tensor>>& taps, const std::vector<at::Tensor>& logits,
                           const ModelPass& pass) const;

  NamedTensors fusion_parameters() const;    ///< fusion part and head: what phase 1 trains
  NamedTensors backbone_parameters() const;  ///< floating ones
  NamedTensors parameters() const;           ///< both
  NamedTensors buffers() const;
  NamedTensors tensors() const;              ///< parameters and buffers: what a checkpoint holds
  void set_backbones_trainable(bool trainable);

  const Architecture& architecture() const { return architecture_; }
  const RetrainingOptions& options() const { return options_; }
  std::int64_t classes() const { return classes_; }
  const std::vector<ModelModality>& modalities() const { return modalities_; }
  bool has_backbones() const { return has_backbones_; }
  std::int64_t tokens() const { return tokens_; }  ///< T of a temporal head, else 0
  /// Of a temporal head, [m][i]: T of the map of tap i, 0 without time or where no step reads it. Else empty.
  const std::vector<std::vector<std::int64_t>>& times() const { return times_; }
  const FusionNetwork& fusion() const { return *fusion_; }
  const std::vector<MmtmPlace>& mmtm_places() const { return places_; }  ///< in the order in which they run
  const std::vector<Mmtm>& mmtm_modules() const { return modules_; }     ///< beside the places
  const TemporalHead* head() const { return head_.get(); }

 private:
  struct Streams {
    std::vector<std::vector<at::Tensor>> maps;  ///< [m][tap]
    std::vector<at::Tensor> logits;
  };
  void check_backbones() const;
  void find_tokens(const at::TensorOptions& tensors);
  Streams run_backbones(const std::vector<at::Tensor>& inputs, const ModelPass& pass) const;
  Streams run_gated(const std::vector<at::Tensor>& inputs, const ModelPass& pass) const;
  std::vector<std::vector<at::Tensor>> tokens_of_maps(const std::vector<std::vector<at::Tensor>>& maps) const;
  std::vector<std::vector<at::Tensor>> rows_over_time(const std::vector<std::vector<at::Tensor>>& tokens) const;
  std::vector<at::Tensor> masks(std::int64_t rows, std::int64_t steps_of_time, const ModelPass& pass) const;
  at::Tensor fuse(const std::vector<std::vector<at::Tensor>>& taps, std::int64_t rows, const ModelPass& pass) const;
  bool is_read(std::size_t m, std::size_t tap) const;

  Architecture architecture_;
  RetrainingOptions options_;
  std::int64_t classes_;
  std::vector<ModelModality> modalities_;
  bool has_backbones_ = false;
  std::int64_t tokens_ = 0;
  std::vector<std::vector<std::int64_t>> times_;
  std::unique_ptr<FusionNetwork> fusion_;
  std::vector<MmtmPlace> places_;
  std::vector<Mmtm> modules_;
  std::unique_ptr<TemporalHead> head_;
};

/// The head's options as the retraining's say them, for tokens of this width. FRAB's inner convolution is half as wide as its output, in
/// as many groups as divide both that and 32.
TemporalHeadOptions temporal_head_options(const RetrainingOptions& options);

}  // namespace fusion
