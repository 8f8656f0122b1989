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
  int retries = 2;       ///< attempts that may fail (failed or oom) before the trial is failed for good
  int parallel = 64;     ///< trials of this study that may be queued or leased at once

  static StudySpec read(JsonReader& reader);
  nlohmann::json to_json() const;  ///< every default filled in
};

}  // namespace fusion
