#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/enum_names.h"
#include "base/id.h"
#include "space/architecture.h"
#include "space/retraining_options.h"
#include "space/trial.h"

namespace fusion {

/// queued -> leased -> completed | failed;   leased -> queued (lost, preempted, or failed with retries left);
/// queued | leased <-> paused;   queued | leased | paused -> cancelled. completed, failed and cancelled are final. Names are stored.
enum class RetrainingState : std::uint8_t { queued, leased, paused, completed, failed, cancelled };
template <>
struct EnumNames<RetrainingState> {
  static constexpr std::array<std::pair<RetrainingState, std::string_view>, 6> kTable{{{RetrainingState::queued, "queued"},
                                                                                       {RetrainingState::leased, "leased"},
                                                                                       {RetrainingState::paused, "paused"},
                                                                                       {RetrainingState::completed, "completed"},
                                                                                       {RetrainingState::failed, "failed"},
                                                                                       {RetrainingState::cancelled, "cancelled"}}};
};
bool can_follow(RetrainingState from, RetrainingState to);
bool is_final(RetrainingState state);

/// What a worker is asked to retrain.
struct RetrainingJob {
  RetrainingId retraining;
  int attempt = 0;             ///< 1-based
  Architecture architecture;
  std::string dataset_path;    ///< the feature manifest, absolute; it names dataset and backbones (docs/data.md)
  std::string dataset_digest;  ///< what the manifest must have
  RetrainingOptions options;
  std::uint64_t seed = 0;      ///< of initial weights, dropout and the order of rows; below 2^53
  std::string folder;          ///< absolute; of this retraining alone: checkpoint and artifacts. An attempt goes on where the last one got to
  /// Where it comes from, for the metadata of what is exported: {"study": {id, name}, "trial": {id, dev_score, test_score, seed}}, or
  /// what the exported file said, with its `source`.
  nlohmann::json lineage = nlohmann::json::object();
  bool operator==(const RetrainingJob&) const = default;
  nlohmann::json to_json() const;
  static RetrainingJob read(JsonReader& reader);
};

/// One pass over the train split. Epochs are counted from 1 over both phases.
struct RetrainingEpoch {
  int epoch = 0;
  int phase = 2;               ///< 1: fusion part only, 2: as `finetune` says
  double train_loss = 0, dev_loss = 0;
  double dev_score = 0;        ///< the metric on dev
  double learning_rate = 0;    ///< after the epoch's last step
  double seconds = 0;
  double rows_per_s = 0;
  bool operator==(const RetrainingEpoch&) const = default;
  nlohmann::json to_json() const;
  static RetrainingEpoch read(JsonReader& reader);
};

/// How far the epoch at hand is: for people who watch; never stored.
struct RetrainingProgress {
  int epoch = 0, epochs = 0;   ///< the one at hand, and how many there are
  std::int64_t rows = 0, of_rows = 0;  ///< of the epoch
  double rows_per_s = 0;
  double eta_s = 0;            ///< of the whole retraining
  bool operator==(const RetrainingProgress&) const = default;
  nlohmann::json to_json() const;
  static RetrainingProgress read(JsonReader& reader);
};

/// A file that a retraining made.
struct Artifact {
  std::string name;            ///< "model.pt", "model.safetensors", "architecture.json": unique within the retraining, no path
  std::string path;            ///< absolute, in the retraining's folder as the daemon sees it; while the model is made, as the worker does
  std::int64_t bytes = 0;
  std::string sha256;
  bool operator==(const Artifact&) const = default;
  nlohmann::json to_json() const;
  static Artifact read(JsonReader& reader);
};

/// What a retraining gave. Dev figures are those of the best epoch, whose weights count; test was looked at once, at the end.
struct RetrainingScore {
  double dev_score = 0;
  int best_epoch = 0;          ///< 0 if no epoch beat 0
  std::optional<double> test_score;  ///< none where there is no test split
  double train_loss = 0;       ///< mean over the last epoch
  double train_s = 0;          ///< over all attempts
  std::int64_t parameters = 0; ///< of the whole model, backbones included
  std::int64_t trained_parameters = 0;
  int batch = 0;               ///< rows at once that memory allowed; smaller than asked for after out of memory
  /// Per split "dev" and "test": accuracy, top5, weighted_f1, macro_f1, loss, confusion [truth][predicted], classes [{name, rows, precision,
  /// recall, f1}]; beside them multiply_adds (a row), latency_ms (a row, alone) and device. Written by workers/train/evaluation.h.
  nlohmann::json evaluation = nlohmann::json::object();
  std::vector<Artifact> artifacts;
  bool operator==(const RetrainingScore&) const = default;
  nlohmann::json to_json() const;
  static RetrainingScore read(JsonReader& reader);
};

/// How an attempt ended. `score` is there if and only if outcome is completed; `error` is a sentence unless it is. A loss that became NaN
/// is `failed`, its sentence names the epoch and the last finite loss.
struct RetrainingOutcome {
  RetrainingId retraining;
  int attempt = 0;
  Outcome outcome = Outcome::completed;  ///< never pruned
  std::optional<RetrainingScore> score;
  std::string error;
  std::string device, code_version, torch_version;
  bool operator==(const RetrainingOutcome&) const = default;
  nlohmann::json to_json() const;
  static RetrainingOutcome read(JsonReader& reader);
};

}  // namespace fusion
