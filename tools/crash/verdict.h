#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tools/crash/history_check.h"

namespace fusion {

/// Of sorted or unsorted numbers, by the nearest rank; 0 if there are none.
double percentile(std::vector<double> values, double share);

/// Counts of what was found, and the first findings in words: members `studies`, `trials`, `attempts`, `epochs`, `results_acknowledged`,
/// `epochs_acknowledged`, `lost`, `doubled`, `stuck`, `illegal`, `findings`.
nlohmann::json verdict_json(const HistoryFindings& findings);
/// The same for people, several lines.
std::string verdict_text(const HistoryFindings& findings);

}  // namespace fusion
