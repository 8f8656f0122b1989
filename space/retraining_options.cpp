#include "space/retraining_options.h"

#include <nlohmann/json.hpp>
#include <string>

namespace fusion {
namespace {

int whole(JsonReader& reader, std::string_view key, std::int64_t min, std::int64_t max, int fallback) {
  return static_cast<int>(reader.integer(key, min, max, fallback));
}

/// What the head changes of the defaults.
RetrainingOptions defaults_of(HeadKind head) {
  RetrainingOptions o;
  o.head = head;
  if (is_temporal(head)) {
    o.optimiser = Optimiser::adamw;
    o.schedule = RateSchedule::plateau;
    o.weight_decay = 1e-3;
  }
  return o;
}

void read_training(JsonReader& reader, RetrainingOptions& o) {
  o.fusion_epochs = whole(reader, "fusion_epochs", 0, 10'000, o.fusion_epochs);
  o.epochs = whole(reader, "epochs", 0, 10'000, o.epochs);
  o.finetune = reader.choice<Finetune>("finetune", o.finetune);
  o.batch = whole(reader, "batch", 2, 1 << 20, o.batch);
  o.accumulate = whole(reader, "accumulate", 1, 1 << 16, o.accumulate);
  o.clip_norm = reader.number("clip_norm", 0, 1e9, o.clip_norm);
  o.width = whole(reader, "width", 1, 65'536, o.width);
  o.dropout = reader.number("dropout", 0, 0.99, o.dropout);
  o.batchnorm = reader.boolean("batchnorm", o.batchnorm);
  o.alphas = reader.boolean("alphas", o.alphas);
  o.multitask = reader.boolean("multitask", o.multitask);
  o.optimiser = reader.choice<Optimiser>("optimiser", o.optimiser);
  o.schedule = reader.choice<RateSchedule>("schedule", o.schedule);
  o.eta_max = reader.number("eta_max", 1e-12, 10, o.eta_max);
  o.eta_min = reader.number("eta_min", 0, 10, o.eta_min);
  o.restart_epochs = whole(reader, "restart_epochs", 1, 10'000, o.restart_epochs);
  o.restart_factor = whole(reader, "restart_factor", 1, 100, o.restart_factor);
  o.restart_rule = reader.choice<RestartRule>("restart_rule", o.restart_rule);
  o.plateau_factor = reader.number("plateau_factor", 1e-6, 0.999, o.plateau_factor);
  o.plateau_patience = whole(reader, "plateau_patience", 0, 10'000, o.plateau_patience);
  o.weight_decay = reader.number("weight_decay", 0, 1, o.weight_decay);
  o.metric = reader.choice<Metric>("metric", o.metric);
  o.mixed_precision = reader.choice<MixedPrecision>("mixed_precision", o.mixed_precision);
  o.processes = whole(reader, "processes", 1, 1024, o.processes);
  o.batch_statistics = reader.choice<BatchStatistics>("batch_statistics", o.batch_statistics);
}

void read_head(JsonReader& reader, RetrainingOptions& o) {
  o.mmtm_ratio = whole(reader, "mmtm_ratio", 1, 65'536, o.mmtm_ratio);
  o.mmtm_gate = reader.choice<GateForm>("mmtm_gate", o.mmtm_gate);
  o.bert_variant = reader.choice<BertVariant>("bert_variant", o.bert_variant);
  o.bert_layers = whole(reader, "bert_layers", 1, 64, o.bert_layers);
  o.bert_heads = whole(reader, "bert_heads", 1, 1024, o.bert_heads);
  o.bert_keep = reader.number("bert_keep", 0.01, 1, o.bert_keep);
  o.bert_dropout = reader.number("bert_dropout", 0, 0.99, o.bert_dropout);
  o.head_dropout = reader.number("head_dropout", 0, 0.99, o.head_dropout);
  o.l2_normalise = reader.boolean("l2_normalise", o.l2_normalise);
  o.reduction = reader.choice<TokenReduction>("reduction", o.reduction);
  o.reduced_width = whole(reader, "reduced_width", 0, 65'536, o.reduced_width);
}

void check_together(JsonReader& reader, const RetrainingOptions& o) {
  if (o.total_epochs() < 1) reader.fail("epochs", "expected at least one epoch in both phases together, got 0");
  if (o.processes > 1 && o.batch < 2 * o.processes) {
    reader.fail("processes", "expected at most half as many as rows in a batch, which has " + std::to_string(o.batch) + ", got " +
                                 std::to_string(o.processes));
  }
  if (o.eta_min > o.eta_max) reader.fail("eta_min", "is larger than eta_max");
  const int tokens = o.reduction == TokenReduction::none ? o.width : o.reduced_width > 0 ? o.reduced_width : o.width / 4;
  if (o.head == HeadKind::bert && o.bert_heads > 0 && tokens % o.bert_heads != 0) {
    reader.fail("bert_heads", "expected a divisor of the tokens' width, which is " + std::to_string(tokens) + ", got " +
                                  std::to_string(o.bert_heads));
  }
  if (o.reduction != TokenReduction::none && !is_temporal(o.head)) {
    reader.fail("reduction", "is for temporal heads (bert, mean, concatenation, lstm, nonlocal), the head is " +
                                 std::string(name_of(o.head)));
  }
}

}  // namespace

RetrainingOptions RetrainingOptions::read(JsonReader& reader) {
  RetrainingOptions o = defaults_of(reader.choice<HeadKind>("head", HeadKind::linear));
  read_training(reader, o);
  read_head(reader, o);
  check_together(reader, o);
  reader.finish();
  return o;
}

nlohmann::json RetrainingOptions::to_json() const {
  return {{"head", name_of(head)},
          {"fusion_epochs", fusion_epochs},
          {"epochs", epochs},
          {"finetune", name_of(finetune)},
          {"batch", batch},
          {"accumulate", accumulate},
          {"clip_norm", clip_norm},
          {"width", width},
          {"dropout", dropout},
          {"batchnorm", batchnorm},
          {"alphas", alphas},
          {"multitask", multitask},
          {"optimiser", name_of(optimiser)},
          {"schedule", name_of(schedule)},
          {"eta_max", eta_max},
          {"eta_min", eta_min},
          {"restart_epochs", restart_epochs},
          {"restart_factor", restart_factor},
          {"restart_rule", name_of(restart_rule)},
          {"plateau_factor", plateau_factor},
          {"plateau_patience", plateau_patience},
          {"weight_decay", weight_decay},
          {"metric", name_of(metric)},
          {"mixed_precision", name_of(mixed_precision)},
          {"processes", processes},
          {"batch_statistics", name_of(batch_statistics)},
          {"mmtm_ratio", mmtm_ratio},
          {"mmtm_gate", name_of(mmtm_gate)},
          {"bert_variant", name_of(bert_variant)},
          {"bert_layers", bert_layers},
          {"bert_heads", bert_heads},
          {"bert_keep", bert_keep},
          {"bert_dropout", bert_dropout},
          {"head_dropout", head_dropout},
          {"l2_normalise", l2_normalise},
          {"reduction", name_of(reduction)},
          {"reduced_width", reduced_width}};
}

}  // namespace fusion
