#include "tools/ctl/figures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "base/progress.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

std::string formatted(const char* format, double value) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), format, value);
  return text.data();
}

}  // namespace

const json* member(const json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(std::string(key));
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const json& value_in(const json& object, std::string_view key) {
  static const json kNull;
  const json* found = member(object, key);
  return found == nullptr ? kNull : *found;
}

std::optional<double> number_in(const json& object, std::string_view key) {
  const json* found = member(object, key);
  if (found == nullptr || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

std::optional<std::int64_t> integer_in(const json& object, std::string_view key) {
  const json* found = member(object, key);
  if (found == nullptr || !found->is_number_integer()) return std::nullopt;
  return found->get<std::int64_t>();
}

std::string text_in(const json& object, std::string_view key, std::string_view otherwise) {
  const json* found = member(object, key);
  return found != nullptr && found->is_string() ? found->get<std::string>() : std::string(otherwise);
}

const json& list_in(const json& object, std::string_view key) {
  static const json kEmpty = json::array();
  const json* found = member(object, key);
  return found != nullptr && found->is_array() ? *found : kEmpty;
}

std::string digits_in(const json& object, std::string_view key) {
  const json* found = member(object, key);
  return found != nullptr && found->is_number_integer() ? found->dump() : kAbsent;
}

std::string score_text(std::optional<double> score) { return score ? formatted("%.4f", *score) : kAbsent; }

std::string figure_text(std::optional<double> figure) { return figure ? formatted("%.4g", *figure) : kAbsent; }

std::string grouped(std::string_view digits) {
  const bool negative = !digits.empty() && digits[0] == '-';
  const std::string_view bare = digits.substr(negative ? 1 : 0);
  if (bare.empty() || bare.find_first_not_of("0123456789") != std::string_view::npos) return std::string(digits);
  std::string text = negative ? "-" : "";
  for (std::size_t i = 0; i < bare.size(); ++i) {
    if (i > 0 && (bare.size() - i) % 3 == 0) text += ',';
    text += bare[i];
  }
  return text;
}

std::string duration(std::optional<double> seconds) {
  if (!seconds || !std::isfinite(*seconds) || *seconds < 0) return kAbsent;
  if (*seconds < 0.995) return formatted("%.2f s", *seconds);
  if (*seconds < 9.95) return formatted("%.1f s", *seconds);
  if (*seconds < 86'400) return duration_text(*seconds);
  const auto hours = static_cast<long long>(*seconds / 3600);
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%lld d %02lld h", hours / 24, hours % 24);
  return text.data();
}

std::string time_text(std::optional<std::int64_t> unix_ms) {
  if (!unix_ms) return kAbsent;
  const std::time_t seconds = *unix_ms / 1000;
  std::tm parts{};
  std::array<char, 64> text{};
  if (::gmtime_r(&seconds, &parts) == nullptr) return kAbsent;
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%SZ", &parts);
  return text.data();
}

std::string plural(std::int64_t count, std::string_view thing) {
  return grouped(std::to_string(count)) + " " + std::string(thing) + (count == 1 ? "" : "s");
}

std::string sparkline(const std::vector<std::optional<double>>& values) {
  static constexpr std::array<const char*, 8> kHeights{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  double low = INFINITY, high = -INFINITY;
  for (const auto& value : values) {
    if (!value || !std::isfinite(*value)) continue;
    low = std::min(low, *value);
    high = std::max(high, *value);
  }
  std::string text;
  for (const auto& value : values) {
    if (!value || !std::isfinite(*value)) {
      text += ' ';
      continue;
    }
    const double share = high > low ? (*value - low) / (high - low) : 0.5;
    text += kHeights[std::min<std::size_t>(7, static_cast<std::size_t>(share * 8))];
  }
  return text;
}

std::string bar(double share, std::size_t width) {
  const double clamped = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0.0;
  const auto filled = static_cast<std::size_t>(clamped * static_cast<double>(width));
  return "[" + std::string(filled, '=') + std::string(width - filled, '-') + "]";
}

}  // namespace fusion::ctl
