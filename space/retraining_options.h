#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/enum_names.h"
#include "base/json_reader.h"
#include "space/training_options.h"

namespace fusion {

/// What turns a found configuration into class scores. Names are stored and sent: never rename.
///   linear         the classifier of the search, on pooled taps
///   mmtm           linear, with an MMTM at every found step that gates the backbones' maps for the stages behind (docs/mmtm.md)
///   bert           taps keep their time axis, the fusion network runs per time step, a transformer pools over time (docs/bert-head.md)
///   mean, concatenation, lstm, nonlocal   the temporal heads that BERT is compared with
enum class HeadKind : std::uint8_t { linear, mmtm, bert, mean, concatenation, lstm, nonlocal };
template <>
struct EnumNames<HeadKind> {
  static constexpr std::array<std::pair<HeadKind, std::string_view>, 7> kTable{{{HeadKind::linear, "linear"},
                                                                                {HeadKind::mmtm, "mmtm"},
                                                                                {HeadKind::bert, "bert"},
                                                                                {HeadKind::mean, "mean"},
                                                                                {HeadKind::concatenation, "concatenation"},
                                                                                {HeadKind::lstm, "lstm"},
                                                                                {HeadKind::nonlocal, "nonlocal"}}};
};
/// Whether the head reads tokens over time.
constexpr bool is_temporal(HeadKind head) { return head != HeadKind::linear && head != HeadKind::mmtm; }

/// What phase 2 trains beside fusion part and head. none: the backbones stay as they are, in evaluation mode. all: their weights too, with batch
/// statistics (the published protocol).
enum class Finetune : std::uint8_t { none, all };
template <>
struct EnumNames<Finetune> {
  static constexpr std::array<std::pair<Finetune, std::string_view>, 2> kTable{{{Finetune::none, "none"}, {Finetune::all, "all"}}};
};

/// adam: L2 added to the gradient, as the search. adamw: decoupled weight decay, as the BERT reference.
enum class Optimiser : std::uint8_t { adam, adamw };
template <>
struct EnumNames<Optimiser> {
  static constexpr std::array<std::pair<Optimiser, std::string_view>, 2> kTable{
      {{Optimiser::adam, "adam"}, {Optimiser::adamw, "adamw"}}};
};

/// cosine: with warm restarts, one step per batch (workers/train/schedule.h). plateau: the rate falls by `plateau_factor` when the dev loss
/// has not fallen for more than `plateau_patience` epochs.
enum class RateSchedule : std::uint8_t { cosine, plateau };
template <>
struct EnumNames<RateSchedule> {
  static constexpr std::array<std::pair<RateSchedule, std::string_view>, 2> kTable{
      {{RateSchedule::cosine, "cosine"}, {RateSchedule::plateau, "plateau"}}};
};

/// The gate of an MMTM: 2 sigmoid(e) in the paper, sigmoid(e) in the authors' code.
enum class GateForm : std::uint8_t { paper, reference };
template <>
struct EnumNames<GateForm> {
  static constexpr std::array<std::pair<GateForm, std::string_view>, 2> kTable{
      {{GateForm::paper, "paper"}, {GateForm::reference, "reference"}}};
};

/// The variants of the BERT head in its authors' code (docs/bert-head.md). Names are stored.
enum class BertVariant : std::uint8_t { BERT, BERT2, BERT3, BERT4, BERT5, BERT6, BERT7 };
template <>
struct EnumNames<BertVariant> {
  static constexpr std::array<std::pair<BertVariant, std::string_view>, 7> kTable{{{BertVariant::BERT, "BERT"},
                                                                                   {BertVariant::BERT2, "BERT2"},
                                                                                   {BertVariant::BERT3, "BERT3"},
                                                                                   {BertVariant::BERT4, "BERT4"},
                                                                                   {BertVariant::BERT5, "BERT5"},
                                                                                   {BertVariant::BERT6, "BERT6"},
                                                                                   {BertVariant::BERT7, "BERT7"}}};
};

/// How the tokens' width is reduced before the head: not at all, or by the additional bottleneck block over time (FRAB).
enum class TokenReduction : std::uint8_t { none, frab };
template <>
struct EnumNames<TokenReduction> {
  static constexpr std::array<std::pair<TokenReduction, std::string_view>, 2> kTable{{{TokenReduction::none, "none"}, {TokenReduction::frab, "frab"}}};
};

/// off: float32 throughout. on: products in bfloat16 under autocast, weights and sums in float32.
enum class MixedPrecision : std::uint8_t { off, on };
template <>
struct EnumNames<MixedPrecision> {
  static constexpr std::array<std::pair<MixedPrecision, std::string_view>, 2> kTable{
      {{MixedPrecision::off, "off"}, {MixedPrecision::on, "on"}}};
};

/// Whose rows batch normalisation takes mean and variance of while it trains, where processes share a batch. synchronised: of the whole batch, as one
/// process does. local: of the process's own rows, which costs no messages; running statistics are averaged after every epoch.
enum class BatchStatistics : std::uint8_t { synchronised, local };
template <>
struct EnumNames<BatchStatistics> {
  static constexpr std::array<std::pair<BatchStatistics, std::string_view>, 2> kTable{
      {{BatchStatistics::synchronised, "synchronised"}, {BatchStatistics::local, "local"}}};
};

/// How a found configuration is trained again: the `options` of a retraining. Defaults are the published "found" protocol (MFAS, section 5 of
/// the method notes): phase 1 trains the fusion part on stored features, phase 2 all weights, multitask loss, R 256, dropout 0.4.
///
/// `optimiser`, `schedule`, `eta_max` and `weight_decay` have another default for temporal heads: AdamW, plateau, 1e-3 and 1e-3, as the BERT
/// reference but for the rate (1e-5 there, chosen for fine-tuning a video network; too small for a head that starts from nothing).
struct RetrainingOptions {
  HeadKind head = HeadKind::linear;
  int fusion_epochs = 1;       ///< phase 1: fusion part and head only; 0 leaves it out
  int epochs = 70;             ///< phase 2
  Finetune finetune = Finetune::all;
  int batch = 32;              ///< rows per step
  int accumulate = 1;          ///< steps whose gradients are averaged before the weights move
  double clip_norm = 0;        ///< the gradient's norm is cut to this; 0: never
  int width = 256;             ///< R, outputs of every fusion step
  double dropout = 0.4;        ///< after every fusion step
  bool batchnorm = false, alphas = false;
  bool multitask = true;       ///< adds the cross entropies of the backbones' own logits, where they have any; predictions are of the sum
  Optimiser optimiser = Optimiser::adam;
  RateSchedule schedule = RateSchedule::cosine;
  double eta_max = 1e-3, eta_min = 1e-6;  ///< plateau begins at eta_max and never goes below eta_min
  int restart_epochs = 5, restart_factor = 2;  ///< Ti, Tm of the cosine
  RestartRule restart_rule = RestartRule::repaired;
  double plateau_factor = 0.1;
  int plateau_patience = 5;
  double weight_decay = 1e-4;
  Metric metric = Metric::accuracy;  ///< on dev: chooses the epoch whose weights count
  MixedPrecision mixed_precision = MixedPrecision::off;
  int processes = 1;           ///< that share the rows of every batch: one per GPU, or so many on the CPU (docs/retraining.md)
  BatchStatistics batch_statistics = BatchStatistics::synchronised;

  int mmtm_ratio = 4;          ///< mmtm: hidden units are 2 (sum of the channels) / ratio
  GateForm mmtm_gate = GateForm::paper;

  BertVariant bert_variant = BertVariant::BERT5;
  int bert_layers = 1, bert_heads = 8;
  double bert_keep = 0.8;      ///< probability that a token is seen by the others while training
  double bert_dropout = 0.1;   ///< within the transformer
  double head_dropout = 0.8;   ///< temporal heads: before the classifier
  bool l2_normalise = false;   ///< temporal heads: tokens are scaled to length 1 first
  TokenReduction reduction = TokenReduction::none;
  int reduced_width = 0;       ///< with reduction; 0: a quarter of the width
  bool operator==(const RetrainingOptions&) const = default;

  /// Reads the object; problems go to the reader, also those between members (bert_heads must divide the width, say).
  static RetrainingOptions read(JsonReader& reader);
  nlohmann::json to_json() const;
  /// Epochs of both phases.
  int total_epochs() const { return fusion_epochs + epochs; }
};

}  // namespace fusion
