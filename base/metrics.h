#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fusion {

/// Something counted since the start. Any thread may add and any may read; neither waits, for nothing is locked.
class Counter {
 public:
  void add(std::uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

/// How long something took, counted by size. Threads as of Counter: who reads while others add may miss the newest, and no more.
class DurationHistogram {
 public:
  /// Upper bounds of the buckets in seconds; what is longer goes into one more.
  static constexpr std::array<double, 15> kUpTo_s{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                                  0.05,   0.1,     0.25,   0.5,   1,      2.5,   10};
  void add(std::chrono::nanoseconds took);
  /// Of each bucket alone (not summed up), the unbounded one last.
  std::array<std::uint64_t, kUpTo_s.size() + 1> counts() const;
  double sum_s() const { return static_cast<double>(sum_ns_.value()) * 1e-9; }

 private:
  std::array<Counter, kUpTo_s.size() + 1> counts_;
  Counter sum_ns_;
};

/// Writes metrics in the text format of Prometheus (version 0.0.4): a metric is begun with its name, kind and a sentence, then its values
/// follow. A name is begun once, has the form [a-z_]+, and ends in `_total` if and only if it is a counter. Not thread-safe.
class MetricsText {
 public:
  using Labels = std::vector<std::pair<std::string_view, std::string>>;

  MetricsText& counter(std::string_view name, std::string_view help) { return begin(name, "counter", help); }
  MetricsText& gauge(std::string_view name, std::string_view help) { return begin(name, "gauge", help); }
  /// Of the metric begun last.
  MetricsText& value(double value, const Labels& labels = {}) { return sample("", value, labels); }
  /// A whole metric, in seconds.
  MetricsText& histogram(std::string_view name, std::string_view help, const DurationHistogram& histogram);

  const std::string& text() const { return text_; }

 private:
  MetricsText& begin(std::string_view name, std::string_view kind, std::string_view help);
  MetricsText& sample(std::string_view suffix, double value, const Labels& labels);
  std::string text_, name_;
};

}  // namespace fusion
