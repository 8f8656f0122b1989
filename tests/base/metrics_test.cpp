#include "base/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace fusion {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

TEST(MetricsTextTest, WritesTheTextFormat) {
  MetricsText out;
  out.gauge("fusion_trials", "Trials by state.").value(3, {{"state", "queued"}}).value(0.25, {{"state", "a\"b\\c\nd"}, {"study", "1"}});
  out.counter("fusion_epochs_total", "Epochs.").value(1e15);
  out.gauge("fusion_loss", "Loss.").value(1e-9);
  EXPECT_EQ(out.text(),
            "# HELP fusion_trials Trials by state.\n"
            "# TYPE fusion_trials gauge\n"
            "fusion_trials{state=\"queued\"} 3\n"
            "fusion_trials{state=\"a\\\"b\\\\c\\nd\",study=\"1\"} 0.25\n"
            "# HELP fusion_epochs_total Epochs.\n"
            "# TYPE fusion_epochs_total counter\n"
            "fusion_epochs_total 1000000000000000\n"
            "# HELP fusion_loss Loss.\n"
            "# TYPE fusion_loss gauge\n"
            "fusion_loss 1e-09\n");
}

TEST(DurationHistogramTest, CountsUpToAndIncludingEachBound) {
  DurationHistogram histogram;
  for (const auto took : {100'000ns, 100'001ns, 3'000'000ns, 60'000'000'000ns}) histogram.add(took);
  EXPECT_EQ(histogram.counts()[0], 1u);
  EXPECT_EQ(histogram.counts()[1], 1u);
  EXPECT_EQ(histogram.counts().back(), 1u);
  EXPECT_DOUBLE_EQ(histogram.sum_s(), 60.003200001);
  MetricsText out;
  out.histogram("fusion_wait_seconds", "Waiting.", histogram);
  EXPECT_THAT(out.text(), HasSubstr("# TYPE fusion_wait_seconds histogram\nfusion_wait_seconds_bucket{le=\"0.0001\"} 1\n"));
  EXPECT_THAT(out.text(), HasSubstr("fusion_wait_seconds_bucket{le=\"0.005\"} 3\n")) << "buckets are summed up";
  EXPECT_THAT(out.text(), HasSubstr("fusion_wait_seconds_bucket{le=\"+Inf\"} 4\nfusion_wait_seconds_sum 60.003200001\nfusion_wait_seconds_count 4\n"));
}

TEST(CounterTest, LosesNothingOfManyThreads) {
  Counter counter;
  DurationHistogram histogram;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 10'000; ++n) {
        counter.add();
        histogram.add(1us);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter.value(), 40'000u);
  EXPECT_EQ(histogram.counts()[0], 40'000u);
}

}  // namespace
}  // namespace fusion
