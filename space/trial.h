#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/enum_names.h"
#include "base/id.h"
#include "base/json_reader.h"
#include "space/architecture.h"
#include "space/training_options.h"

namespace fusion {

/// queued -> leased -> completed | failed;   leased -> queued (lost, preempted, or failed with retries left);
/// queued | leased -> cancelled. completed, failed and cancelled are final. A trial that was ended early with a score (outcome
/// pruned) is completed too, and marked. Names are stored.
enum class TrialState : std::uint8_t { queued, leased, completed, failed, cancelled };
template <>
struct EnumNames<TrialState> {
  static constexpr std::array<std::pair<TrialState, std::string_view>, 5> kTable{{{TrialState::queued, "queued"},
                                                                                  {TrialState::leased, "leased"},
                                                                                  {TrialState::completed, "completed"},
                                                                                  {TrialState::failed, "failed"},
                                                                                  {TrialState::cancelled, "cancelled"}}};
};
bool can_follow(TrialState from, TrialState to);
bool is_final(TrialState state);

/// How one attempt at a trial ended. preempted and lost never use up a retry (but see RetryBudget::lost). Names are stored.
enum class Outcome : std::uint8_t { completed, pruned, failed, oom, preempted, lost, cancelled };
template <>
struct EnumNames<Outcome> {
  static constexpr std::array<std::pair<Outcome, std::string_view>, 7> kTable{{{Outcome::completed, "completed"},
                                                                               {Outcome::pruned, "pruned"},
                                                                               {Outcome::failed, "failed"},
                                                                               {Outcome::oom, "oom"},
                                                                               {Outcome::preempted, "preempted"},
                                                                               {Outcome::lost, "lost"},
                                                                               {Outcome::cancelled, "cancelled"}}};
};

/// What training one candidate gave. Scores in [0, 1]; dev figures are those of the best epoch, whose weights count.
struct Score {
  double dev_score = 0;      ///< the study's metric on dev: best epoch, strict >, start value 0
  int best_epoch = 0;        ///< 1-based; 0 if no epoch beat 0
  double dev_accuracy = 0, dev_weighted_f1 = 0, dev_macro_f1 = 0;
  std::optional<double> test_score;  ///< the study's metric on test, only with evaluate_test
  double train_loss = 0;     ///< mean over the last epoch
  double train_s = 0;        ///< seconds the worker spent on this trial
  std::int64_t parameters = 0;       ///< weights that were trained
  bool operator==(const Score&) const = default;
  nlohmann::json to_json() const;
  static Score read(JsonReader& reader);
};

struct EpochReport {
  int epoch = 0;  ///< 1-based
  double train_loss = 0;
  double dev_score = 0;
  double learning_rate = 0;  ///< after the epoch's last step
  double seconds = 0;
  bool operator==(const EpochReport&) const = default;
};

/// What a worker is asked to train.
struct TrialJob {
  TrialId trial;
  int attempt = 0;  ///< 1-based; results of an older attempt are accepted only while nobody finished first
  Architecture architecture;
  std::uint64_t seed = 0;  ///< of initial weights and dropout; below 2^53
  bool operator==(const TrialJob&) const = default;
};

/// What a worker answers. `score` is there if and only if outcome is completed or pruned; `error` is a sentence unless it is completed.
struct TrialOutcome {
  TrialId trial;
  int attempt = 0;
  Outcome outcome = Outcome::completed;
  std::optional<Score> score;
  std::string error;
  std::string engine;         ///< what trained it: "plain", "stacked" or "autograd" (workers/train/trainer.h)
  std::string device;         ///< "cpu", "cuda:0"
  std::string code_version;
  std::string torch_version;
  bool operator==(const TrialOutcome&) const = default;
};

/// The seed of a trial: depends on the study's seed, the architecture and the replica, never on the order of proposals.
std::uint64_t trial_seed(std::uint64_t study_seed, const Architecture& architecture, int replica = 0);

/// The seed of the order in which rows are read: one for all trials of a study, below 2^53, so that trials trained together read the
/// same batches, and a trial's figures are the same however trials are grouped.
std::uint64_t order_seed(std::uint64_t study_seed);

/// A trial as the store knows it.
struct Trial {
  TrialId id;
  StudyId study;
  std::int64_t ask_index = 0;  ///< place in the order of proposals, from 0
  std::int64_t told_index = -1;  ///< place in the order of ends as committed, from 0; -1 while not final
  Architecture architecture;
  int replica = 0;         ///< 0 for the first training of an architecture
  std::uint64_t seed = 0;
  TrialState state = TrialState::queued;
  int attempt = 0;         ///< attempts begun so far
  int failures = 0;        ///< attempts that used up a retry: ended failed or oom, but not the first that ended oom
  int failed = 0, oom = 0, preempted = 0, lost = 0;  ///< attempts that ended so
  int deaths = 0;          ///< of those lost: the worker died while it trained nothing but this trial
  /// The next attempt is a pack of its own, on a worker that holds nothing else (workers/dispatch/dispatcher.h, "Poison"): a worker died
  /// that trained this among others, or memory ran out.
  bool alone = false;
  std::optional<Score> score;
  bool pruned = false;     ///< completed, but ended early: the score is of the epochs that were finished
  std::string error;       ///< of the last attempt that failed
  std::string facts;       ///< JSON the strategy noted with the proposal (level, iteration, temperature, prediction)
  UnixMs created = 0, updated = 0;
  TrialId inherited_from;  ///< of a fork: the trial of the other study that this is a copy of; it was not trained here
};

}  // namespace fusion
