#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tools/ctl/table.h"
#include "tools/ctl/terminal.h"

namespace fusion::ctl {

/// How many trials of a study stand where. `total` is 0 where it is not known.
struct TrialCounts {
  std::int64_t queued = 0, leased = 0, completed = 0, failed = 0, cancelled = 0, total = 0;
  std::int64_t pruned = 0;  // of those completed
  std::int64_t ended() const { return completed + failed + cancelled; }
  double share() const { return total > 0 ? static_cast<double>(ended()) / static_cast<double>(total) : 0; }

  static TrialCounts of(const nlohmann::json& study);
  /// "33 of 195 trials", "33 trials" where the total is not known.
  std::string progress() const;
};

/// running plain, completed good, failed and cancelled bad, whatever else faint: of studies, trials and attempts.
Style style_of_state(const std::string& state);
/// The state of a record; of a trial that was ended early "pruned".
std::string state_text(const nlohmann::json& record, const char* key = "state");
/// A cell with a state in its style; a trial that was ended early is shown as pruned.
Cell state_cell(const nlohmann::json& record, const char* key = "state");

/// Pure functions: the JSON of an answer as text for people. Members that are absent show as kAbsent.
std::string studies_view(const nlohmann::json& studies, const Terminal& terminal);
std::string study_view(const nlohmann::json& study, const Terminal& terminal);
std::string fits_view(const nlohmann::json& fits, const Terminal& terminal);

}  // namespace fusion::ctl
