#include "base/metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace fusion {

namespace {

/// 3, 0.00025, 1e-09: the shortest text that reads back as the same number, without an exponent where people read it better so.
std::string number_text(double value) {
  char text[48];
  const bool plain = value == 0 || (std::abs(value) >= 1e-6 && std::abs(value) < 1e18);
  const auto format = plain ? std::chars_format::fixed : std::chars_format::general;
  const auto [end, error] = std::to_chars(text, text + sizeof(text), value, format);
  return {text, end};
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

void DurationHistogram::add(std::chrono::nanoseconds took) {
  const double seconds = std::chrono::duration<double>(took).count();
  const auto bucket = std::ranges::lower_bound(kUpTo_s, seconds) - kUpTo_s.begin();
  counts_[static_cast<std::size_t>(bucket)].add();
  sum_ns_.add(static_cast<std::uint64_t>(std::max<std::int64_t>(took.count(), 0)));
}

std::array<std::uint64_t, DurationHistogram::kUpTo_s.size() + 1> DurationHistogram::counts() const {
  std::array<std::uint64_t, kUpTo_s.size() + 1> counts{};
  for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = counts_[i].value();
  return counts;
}

MetricsText& MetricsText::histogram(std::string_view name, std::string_view help, const DurationHistogram& histogram) {
  begin(name, "histogram", help);
  const auto counts = histogram.counts();
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    below += counts[i];
    const bool last = i == DurationHistogram::kUpTo_s.size();
    sample("_bucket", static_cast<double>(below), {{"le", last ? "+Inf" : number_text(DurationHistogram::kUpTo_s[i])}});
  }
  sample("_sum", histogram.sum_s(), {});
  return sample("_count", static_cast<double>(below), {});
}

MetricsText& MetricsText::begin(std::string_view name, std::string_view kind, std::string_view help) {
  name_ = name;
  text_ += "# HELP " + name_ + " " + std::string(help) + "\n# TYPE " + name_ + " " + std::string(kind) + "\n";
  return *this;
}

MetricsText& MetricsText::sample(std::string_view suffix, double value, const Labels& labels) {
  text_ += name_;
  text_ += suffix;
  char open = '{';
  for (const auto& [label, content] : labels) {
    text_ += open;
    text_ += std::string(label) + "=\"" + escaped(content) + "\"";
    open = ',';
  }
  if (!labels.empty()) text_ += '}';
  text_ += " " + number_text(value) + "\n";
  return *this;
}

}  // namespace fusion
