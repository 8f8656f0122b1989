#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "base/enum_names.h"
#include "base/json_reader.h"

namespace fusion {

/// When the cosine schedule restarts (reference/mfas: section 5 of the method notes; docs/architecture.md "Deviations"):
///   repaired   after ceil(nb) * Ti batches, nb = rows / batch: a restart is never missed
///   reference  when lr <= eta_min + 1e-10, with nb a real number: for a non-integer nb it may be missed, and the lr climbs
enum class RestartRule : std::uint8_t { repaired, reference };
template <>
struct EnumNames<RestartRule> {
  static constexpr std::array<std::pair<RestartRule, std::string_view>, 2> kTable{
      {{RestartRule::repaired, "repaired"}, {RestartRule::reference, "reference"}}};
};

/// What a trial's score is: computed on the dev split, in [0, 1], higher is better.
enum class Metric : std::uint8_t { accuracy, weighted_f1, macro_f1 };
template <>
struct EnumNames<Metric> {
  static constexpr std::array<std::pair<Metric, std::string_view>, 3> kTable{
      {{Metric::accuracy, "accuracy"}, {Metric::weighted_f1, "weighted_f1"}, {Metric::macro_f1, "macro_f1"}}};
};

/// How one candidate is trained: the `training` object of a study. Defaults are the reference's search protocol.
struct TrainingOptions {
  int epochs = 3;              ///< the budget: passes over the train split
  int batch = 32;              ///< rows per step; the last batch of an epoch may be smaller
  int width = 16;              ///< R, outputs of every fusion step
  double dropout = 0.5;        ///< after every fusion step, while training
  bool batchnorm = false;      ///< after the activation, as the reference
  bool alphas = false;         ///< per step a learned weight sigmoid(alpha) of the first modality against the others
  bool multitask = false;      ///< adds the cross entropies of the backbones' own logits; needs them in the features
  double weight_decay = 1e-4;  ///< coupled L2, added to the gradient
  double eta_max = 1e-3, eta_min = 1e-6;  ///< learning rate of the cosine schedule
  int restart_epochs = 1;      ///< Ti: epochs to the first restart
  int restart_factor = 2;      ///< Tm: each cycle is this many times as long
  RestartRule restart_rule = RestartRule::repaired;
  bool shuffle = true;         ///< new order of the rows each epoch
  bool weight_sharing = false; ///< fusion layers start from the last trial's of the same shape (a worker's own memory)
  Metric metric = Metric::accuracy;
  bool evaluate_test = false;  ///< also score the best epoch on the test split; kept apart, never told to a strategy
  bool operator==(const TrainingOptions&) const = default;

  static TrainingOptions read(JsonReader& reader);
  nlohmann::json to_json() const;
};

}  // namespace fusion
