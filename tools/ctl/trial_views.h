#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "space/dataset_spec.h"
#include "tools/ctl/terminal.h"

namespace fusion::ctl {

/// Pure functions: trials as text for people. The dataset, where known, gives taps their names.
std::string trials_view(const nlohmann::json& trials, const std::optional<DatasetSpec>& dataset, const Terminal& terminal);
/// The same with places, from 1, and figures that matter for winners.
std::string best_view(const nlohmann::json& trials, const std::optional<DatasetSpec>& dataset, const Terminal& terminal);
/// One trial with its attempts and the course of its epochs.
std::string trial_view(const nlohmann::json& trial, const std::optional<DatasetSpec>& dataset, const Terminal& terminal);

}  // namespace fusion::ctl
