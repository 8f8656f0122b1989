#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/enum_names.h"
#include "base/json_reader.h"
#include "space/early_stopping_options.h"
#include "space/training_options.h"

namespace fusion {

/// running <-> paused -> completed | failed | cancelled. paused: nothing new is leased, what runs may end. failed: the study
/// cannot go on (its dataset changed, say); the reason stands beside it and `fusionctl resume` tries again. Names are stored.
enum class StudyState : std::uint8_t { running, paused, completed, failed, cancelled };
template <>
struct EnumNames<StudyState> {
  static constexpr std::array<std::pair<StudyState, std::string_view>, 5> kTable{{{StudyState::running, "running"},
                                                                                  {StudyState::paused, "paused"},
                                                                                  {StudyState::completed, "completed"},
                                                                                  {StudyState::failed, "failed"},
                                                                                  {StudyState::cancelled, "cancelled"}}};
};

/// How often a trial may end badly and is tried again. Attempts that are preempted or lost use up none of it.
///
/// As JSON: a whole number n is {"failures": n}. Either `failures` (failed and oom together) or `failed` and `oom` (each for itself);
/// `lost` beside either.
struct RetryBudget {
  int failures = 2;  ///< attempts that may end failed or oom, all in all; the first that runs out of memory is free (see Trial::alone)
  int failed = 2;    ///< of these, failed
  int oom = 2;       ///< of these, oom
  /// No retry budget but a guard against poison: how often a trial that is trained alone may take its worker with it. The next time it is
  /// failed for good. Losses of any other kind (daemon restarted, connection lost, preempted, in company of others) never count.
  int lost = 8;

  static RetryBudget of(int failures) { return {failures, failures, failures, RetryBudget{}.lost}; }
  bool operator==(const RetryBudget&) const = default;
  static RetryBudget read(JsonReader& study);  ///< the member `retries` of a study
  nlohmann::json to_json() const;
};

/// When the daemon pauses a study by itself: so many failures with no trial completed in between, within so many seconds. A failure is
/// an attempt that ended failed or oom; workers that died with trials of the study in training count once for every ten seconds in which
/// any did, because machines that go down together say nothing of the study.
struct PauseOptions {
  int failures = 10;   ///< 0: never
  int within_s = 600;
  bool operator==(const PauseOptions&) const = default;
  static PauseOptions read(JsonReader& reader);
  nlohmann::json to_json() const;
};

/// A study as a person writes it (configs/README.md lists every key). `space` and `strategy` stay JSON here: the first is read
/// by SearchSpace once the dataset is known, the second by search/make_strategy.
struct StudySpec {
  std::string name;
  std::string dataset;  ///< path of a dataset.json, or of a features.json; relative ones resolve below the daemon's data root
  nlohmann::json space = nlohmann::json::object();
  nlohmann::json strategy = nlohmann::json::object();
  TrainingOptions training;
  EarlyStoppingOptions early_stopping;
  std::uint64_t seed = 0;
  int priority = 0;      ///< higher first; equal ones share the workers in turn
  RetryBudget retries;
  PauseOptions pause_on;
  int parallel = 64;     ///< trials of this study that may be queued or leased at once

  static StudySpec read(JsonReader& reader);
  nlohmann::json to_json() const;  ///< every default filled in
};

}  // namespace fusion
