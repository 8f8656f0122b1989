#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tools/ctl/terminal.h"

namespace fusion::ctl {

/// Pure functions: what concerns the daemon as a whole, as text for people.
std::string workers_view(const nlohmann::json& workers, const Terminal& terminal);
/// Pools whose size changes, or that have something to say, and what they launched that is not connected; empty where there is neither.
std::string pools_view(const nlohmann::json& pools, const Terminal& terminal);
std::string events_view(const nlohmann::json& events, const Terminal& terminal);
/// The answer of a query: columns whose values are all numbers stand on the right; null shows as NULL, a column named
/// `..._score` or `dev_...` of reals gets four decimals, other reals six significant digits.
std::string rows_view(const nlohmann::json& columns, const nlohmann::json& rows, const Terminal& terminal);

}  // namespace fusion::ctl
