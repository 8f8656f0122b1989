#include "model/retrained_model.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/random.h"
#include "model/backbone.h"
#include "model/dropout.h"
#include "model/time_axis.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

NamedTensors with_prefix(const std::string& prefix, const NamedTensors& tensors) {
  NamedTensors named;
  for (const auto& [name, tensor] : tensors) named.emplace_back(prefix + name, tensor);
  return named;
}

void append(NamedTensors& to, NamedTensors more) { to.insert(to.end(), more.begin(), more.end()); }

at::Tensor at_least_float(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat); }

TapWidths widths_of(const std::vector<ModelModality>& modalities) {
  TapWidths widths;
  for (const ModelModality& modality : modalities) widths.push_back(modality.tap_widths);
  return widths;
}

}  // namespace

at::Tensor ModelOutput::scores(bool multitask) const {
  at::Tensor sum = at_least_float(fusion);
  for (const at::Tensor& own : logits) {
    if (multitask && own.defined()) sum = sum.add(own);
  }
  return sum;
}

at::Tensor ModelOutput::loss(const at::Tensor& labels, bool multitask) const {
  at::Tensor sum = at::cross_entropy_loss(at_least_float(fusion), labels);
  for (const at::Tensor& own : logits) {
    if (multitask && own.defined()) sum = sum.add(at::cross_entropy_loss(at_least_float(own), labels));
  }
  return sum;
}

TemporalHeadOptions temporal_head_options(const RetrainingOptions& o) {
  TemporalHeadOptions head;
  switch (o.head) {
    case HeadKind::mean: head.kind = TemporalKind::mean; break;
    case HeadKind::concatenation: head.kind = TemporalKind::concatenation; break;
    case HeadKind::lstm: head.kind = TemporalKind::lstm; break;
    case HeadKind::nonlocal: head.kind = TemporalKind::non_local; break;
    default: head.kind = TemporalKind::bert; break;
  }
  head.bert.variant = enum_from_name<BertClass>(name_of(o.bert_variant)).value_or(BertClass::bert5);
  head.bert.layers = o.bert_layers;
  head.bert.heads = o.bert_heads;
  head.bert.keep = o.bert_keep;
  head.bert.dropout = o.bert_dropout;
  head.classifier_dropout = o.head_dropout;
  head.normalise = o.l2_normalise;
  if (o.reduction == TokenReduction::frab) {
    head.reduction.kind = ReductionKind::bottleneck;
    head.reduction.kernel = ReductionKernel::time;
    head.reduction.width = o.reduced_width > 0 ? o.reduced_width : std::max(1, o.width / 4);
    head.reduction.inner = std::max<std::int64_t>(1, head.reduction.width / 2);
    head.reduction.groups = std::gcd(head.reduction.inner, std::int64_t{32});
  }
  return head;
}

RetrainedModel::RetrainedModel(const Architecture& architecture, const RetrainingOptions& options, std::int64_t classes,
                               std::vector<ModelModality> modalities, std::uint64_t seed, const at::TensorOptions& tensors)
    : architecture_(architecture), options_(options), classes_(classes), modalities_(std::move(modalities)) {
  has_backbones_ = !modalities_.empty() && std::all_of(modalities_.begin(), modalities_.end(), [](const ModelModality& m) {
    return m.backbone != nullptr;
  });
  check_backbones();
  fusion_ = std::make_unique<FusionNetwork>(architecture, widths_of(modalities_),
                                            FusionOptions{options.width, classes, options.batchnorm, options.alphas}, seed, tensors);
  set_backbones_trainable(false);
  if (options.head == HeadKind::mmtm) {
    places_ = plan_mmtm(architecture);
    for (const MmtmPlace& place : places_) {
      std::vector<std::int64_t> channels;
      for (std::size_t m = 0; m < place.taps.size(); ++m) {
        channels.push_back(modalities_[m].tap_widths[static_cast<std::size_t>(place.taps[m])]);
      }
      const GateRule rule = options.mmtm_gate == GateForm::paper ? GateRule::paper : GateRule::reference;
      modules_.emplace_back(channels, MmtmOptions{static_cast<double>(options.mmtm_ratio), rule}, mix(seed, place.step + 1), tensors);
    }
  }
  if (is_temporal(options.head)) {
    find_tokens(tensors);
    head_ = make_temporal_head(temporal_head_options(options), tokens_, options.width, classes, seed, tensors);
  }
}

void RetrainedModel::check_backbones() const {
  const bool needs_inputs = options_.head != HeadKind::linear || options_.finetune == Finetune::all;
  if (needs_inputs && !has_backbones_) {
    throw ModelError("the features name no backbones, so only head linear with finetune none can be trained on them, got head " +
                     std::string(name_of(options_.head)) + " with finetune " + std::string(name_of(options_.finetune)) +
                     "; make features that do with: fusion-data extract DATASET --backbone MODALITY=FILE");
  }
  if (!has_backbones_) return;
  std::vector<std::string> problems;
  for (const ModelModality& modality : modalities_) {
    std::vector<std::int64_t> widths;
    for (const TapSpec& tap : modality.backbone->taps()) widths.push_back(tap.width);
    if (widths != modality.tap_widths) {
      problems.push_back("modality \"" + modality.name + "\": the backbone's taps are not those of the features; extract them again");
    }
    if (options_.head == HeadKind::mmtm && !modality.backbone->why_not_staged().empty()) {
      problems.push_back(modality.backbone->why_not_staged());
    }
  }
  if (!problems.empty()) throw ModelError(join_problems(problems));
}

bool RetrainedModel::is_read(std::size_t m, std::size_t tap) const {
  return std::any_of(architecture_.steps.begin(), architecture_.steps.end(),
                     [&](const FusionStep& step) { return static_cast<std::size_t>(step.taps[m]) == tap; });
}

void RetrainedModel::find_tokens(const at::TensorOptions& tensors) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> zeros;
  for (const ModelModality& modality : modalities_) {
    std::vector<std::int64_t> shape{2};
    shape.insert(shape.end(), modality.row_shape.begin(), modality.row_shape.end());
    zeros.push_back(at::zeros(shape, tensors.has_dtype() ? tensors : tensors.dtype(at::kFloat)));
  }
  const Streams streams = run_backbones(zeros, {});
  for (std::size_t m = 0; m < modalities_.size(); ++m) {
    auto& times = times_.emplace_back(streams.maps[m].size(), 0);
    for (std::size_t i = 0; i < streams.maps[m].size(); ++i) {
      if (!is_read(m, i)) continue;
      const auto axis = time_axis_of(streams.maps[m][i], modalities_[m].time_axis);
      if (!axis) continue;
      times[i] = streams.maps[m][i].size(*axis);
      tokens_ = tokens_ == 0 ? times[i] : std::min(tokens_, times[i]);
    }
  }
  if (tokens_ == 0) {
    throw ModelError("head " + std::string(name_of(options_.head)) + " reads tokens over time, but no tap of the architecture has a time "
                     "axis; declare time_axis of a modality in dataset.json (-1 for spectrograms) and extract the features again");
  }
}

RetrainedModel::Streams RetrainedModel::run_backbones(const std::vector<at::Tensor>& inputs, const ModelPass& pass) const {
  Streams streams;
  for (std::size_t m = 0; m < modalities_.size(); ++m) {
    BackboneMaps out = modalities_[m].backbone->forward(inputs.at(m), pass.backbones_training);
    streams.maps.push_back(std::move(out.maps));
    streams.logits.push_back(std::move(out.logits));
  }
  return streams;
}

RetrainedModel::Streams RetrainedModel::run_gated(const std::vector<at::Tensor>& inputs, const ModelPass& pass) const {
  std::vector<std::vector<at::Tensor>> flowing(modalities_.size());  // [m]: maps of the stages so far
  const auto advance = [&](std::size_t m, std::size_t stage) {
    const StagedBackbone& backbone = *modalities_[m].backbone;
    while (flowing[m].size() <= stage) {
      const at::Tensor& before = flowing[m].empty() ? inputs[m] : flowing[m].back();
      flowing[m].push_back(backbone.stage(flowing[m].size(), before, pass.backbones_training));
    }
  };
  for (std::size_t k = 0; k < places_.size(); ++k) {
    std::vector<at::Tensor> maps;
    for (std::size_t m = 0; m < modalities_.size(); ++m) {
      const auto tap = static_cast<std::size_t>(places_[k].taps[m]);
      advance(m, tap);
      maps.push_back(flowing[m][tap]);
    }
    const std::vector<at::Tensor> gates = modules_[k].gates(maps);
    for (std::size_t m = 0; m < modalities_.size(); ++m) {
      if (places_[k].gates[m]) flowing[m][static_cast<std::size_t>(places_[k].taps[m])] = Mmtm::apply(gates[m], maps[m]);
    }
  }
  Streams streams;
  for (std::size_t m = 0; m < modalities_.size(); ++m) {
    const StagedBackbone& backbone = *modalities_[m].backbone;
    advance(m, backbone.taps().size() - 1);
    auto& maps = streams.maps.emplace_back();
    for (std::size_t i = 0; i < flowing[m].size(); ++i) maps.push_back(backbone.tap_map(i, flowing[m][i]));
    streams.logits.push_back(backbone.classify(flowing[m].back(), pass.backbones_training));
  }
  return streams;
}

std::vector<std::vector<at::Tensor>> RetrainedModel::tokens_of_maps(const std::vector<std::vector<at::Tensor>>& maps) const {
  std::vector<std::vector<at::Tensor>> tokens(maps.size());
  for (std::size_t m = 0; m < maps.size(); ++m) {
    tokens[m].resize(maps[m].size());
    for (std::size_t i = 0; i < maps[m].size(); ++i) {
      if (is_read(m, i)) tokens[m][i] = tokens_of(maps[m][i], time_axis_of(maps[m][i], modalities_[m].time_axis));
    }
  }
  return tokens;
}

/// Tokens [B, T', C], or [B, C] without time, as rows [B T, C] of the fusion network.
std::vector<std::vector<at::Tensor>> RetrainedModel::rows_over_time(const std::vector<std::vector<at::Tensor>>& tokens) const {
  std::vector<std::vector<at::Tensor>> rows(tokens.size());
  for (std::size_t m = 0; m < tokens.size(); ++m) {
    rows[m].resize(tokens[m].size());
    for (std::size_t i = 0; i < tokens[m].size(); ++i) {
      if (!is_read(m, i)) continue;
      const at::Tensor over_time = tokens[m][i].dim() == 2 ? tokens[m][i].unsqueeze(1) : tokens[m][i];
      rows[m][i] = with_length(over_time, tokens_).flatten(0, 1);
    }
  }
  return rows;
}

std::vector<at::Tensor> RetrainedModel::masks(std::int64_t rows, std::int64_t steps_of_time, const ModelPass& pass) const {
  std::vector<at::Tensor> masks;
  if (!pass.training || options_.dropout == 0) return masks;
  const at::Tensor& like = fusion_->parameters().named().front().second;
  for (std::size_t i = 0; i < architecture_.steps.size(); ++i) {
    const at::Tensor mask = at::empty({rows * steps_of_time, options_.width}, at::kFloat);
    fill_dropout_mask(mask.data_ptr<float>(), mask.numel(), pass.rows_seen * steps_of_time * options_.width, options_.dropout, pass.seed,
                      static_cast<std::uint32_t>(i));
    masks.push_back(mask.to(like.device(), like.scalar_type()));
  }
  return masks;
}

at::Tensor RetrainedModel::fuse(const std::vector<std::vector<at::Tensor>>& taps, std::int64_t rows, const ModelPass& pass) const {
  std::vector<at::Tensor> joined;
  for (std::size_t i = 0; i < architecture_.steps.size(); ++i) joined.push_back(fusion_->join(i, taps));
  FusionNetwork::Trace trace;
  const at::Tensor logits = fusion_->forward(joined, masks(rows, std::max<std::int64_t>(1, tokens_), pass), pass.training, &trace);
  if (!head_) return logits;
  const at::Tensor tokens = trace.hidden.back().view({rows, tokens_, options_.width});
  return head_->forward(tokens, pass.training ? HeadPass::train(pass.seed, pass.rows_seen) : HeadPass::evaluation());
}

ModelOutput RetrainedModel::forward(const std::vector<at::Tensor>& inputs, const ModelPass& pass) const {
  if (!has_backbones_) throw ModelError("this model has no backbones: it reads stored features only");
  const bool gradients = at::GradMode::is_enabled() && (pass.backbones_training || options_.head == HeadKind::mmtm);
  Streams streams;
  {
    const at::AutoGradMode mode(gradients);
    streams = options_.head == HeadKind::mmtm ? run_gated(inputs, pass) : run_backbones(inputs, pass);
  }
  std::vector<std::vector<at::Tensor>> taps;
  if (head_) {
    taps = rows_over_time(tokens_of_maps(streams.maps));
  } else {
    for (const auto& maps : streams.maps) {
      auto& of_modality = taps.emplace_back();
      for (const at::Tensor& map : maps) of_modality.push_back(pool_tap(map));
    }
  }
  return {fuse(taps, inputs.front().size(0), pass), std::move(streams.logits)};
}

ModelOutput RetrainedModel::forward_taps(const std::vector<std::vector<at::Tensor>>& taps, const std::vector<at::Tensor>& logits,
                                         const ModelPass& pass) const {
  if (options_.head == HeadKind::mmtm) throw ModelError("head mmtm scales the backbones' maps, so stored features cannot stand for them");
  const auto first = static_cast<std::size_t>(architecture_.steps.front().taps.front());
  const std::int64_t rows = taps.front().at(first).size(0);
  return {fuse(head_ ? rows_over_time(taps) : taps, rows, pass), logits};
}

NamedTensors RetrainedModel::fusion_parameters() const {
  NamedTensors all;
  for (const auto& [name, tensor] : fusion_->parameters().named()) {
    if (head_ && name.rfind("classifier.", 0) == 0) continue;
    all.emplace_back("fusion." + name, tensor);
  }
  for (std::size_t k = 0; k < modules_.size(); ++k) {
    append(all, with_prefix("mmtm" + std::to_string(places_[k].step) + ".", modules_[k].parameters().named()));
  }
  if (head_) append(all, with_prefix("head.", head_->parameters().named()));
  return all;
}

NamedTensors RetrainedModel::backbone_parameters() const {
  NamedTensors all;
  for (const ModelModality& modality : modalities_) {
    if (!modality.backbone) continue;
    for (const auto& [name, tensor] : modality.backbone->parameters()) {
      if (tensor.is_floating_point()) all.emplace_back("backbone." + modality.name + "." + name, tensor);
    }
  }
  return all;
}

NamedTensors RetrainedModel::parameters() const {
  NamedTensors all = fusion_parameters();
  append(all, backbone_parameters());
  return all;
}

NamedTensors RetrainedModel::buffers() const {
  NamedTensors all = with_prefix("fusion.", fusion_->buffers().named());
  if (head_) append(all, with_prefix("head.", head_->buffers().named()));
  for (const ModelModality& modality : modalities_) {
    if (modality.backbone) append(all, with_prefix("backbone." + modality.name + ".", modality.backbone->buffers()));
  }
  return all;
}

NamedTensors RetrainedModel::tensors() const {
  NamedTensors all = parameters();
  append(all, buffers());
  return all;
}

void RetrainedModel::set_backbones_trainable(bool trainable) {
  for (const ModelModality& modality : modalities_) {
    if (modality.backbone) modality.backbone->set_trainable(trainable);
  }
}

}  // namespace fusion
