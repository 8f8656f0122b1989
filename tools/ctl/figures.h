#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fusion::ctl {

/// What stands where a figure is not known.
inline constexpr const char* kAbsent = "-";

/// Members of an answer. Tolerant: a member that is missing, null or of another type is absent, members not asked for are
/// ignored, so that this client and a newer daemon get along.
const nlohmann::json* member(const nlohmann::json& object, std::string_view key);
/// The same as a value: null if absent.
const nlohmann::json& value_in(const nlohmann::json& object, std::string_view key);
std::optional<double> number_in(const nlohmann::json& object, std::string_view key);
std::optional<std::int64_t> integer_in(const nlohmann::json& object, std::string_view key);
std::string text_in(const nlohmann::json& object, std::string_view key, std::string_view otherwise = "");
/// The list behind a key; an empty one if absent.
const nlohmann::json& list_in(const nlohmann::json& object, std::string_view key);
/// An integer of any size as digits (ids, seeds, counts); kAbsent if absent.
std::string digits_in(const nlohmann::json& object, std::string_view key);

/// Scores and other figures in [0, 1]: four decimals.
std::string score_text(std::optional<double> score);
/// Four significant digits: losses, learning rates.
std::string figure_text(std::optional<double> figure);
/// Decimal digits in groups of three: "837,930". A text that is no number stays as it is.
std::string grouped(std::string_view digits);
/// "0.83 s", "7.4 s", then as base/progress.h: "42 s", "3 min 05 s", "2 h 07 min", and "3 d 04 h" beyond a day.
std::string duration(std::optional<double> seconds);
/// UTC, as in the logs: "2026-01-31 12:00:00Z".
std::string time_text(std::optional<std::int64_t> unix_ms);
/// "1 trial", "2 trials".
std::string plural(std::int64_t count, std::string_view thing);

/// One character of eight heights per value, lowest to highest of those given; a blank where a value is absent or not
/// finite. All equal: all at half height.
std::string sparkline(const std::vector<std::optional<double>>& values);

/// `[======------]`: `width` characters between the brackets, `share` of them filled (clamped to [0, 1]).
std::string bar(double share, std::size_t width);

}  // namespace fusion::ctl
