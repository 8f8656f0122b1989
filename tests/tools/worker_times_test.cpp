#include "tools/worker_times.h"

#include <gtest/gtest.h>

namespace fusion {
namespace {

using namespace std::chrono_literals;

TEST(WorkerTimesTest, TellsWorkFromWaiting) {
  WorkerTimes times;
  EXPECT_EQ(times.packs(), 0u);
  EXPECT_EQ(times.gap_s(1), 0);
  EXPECT_EQ(times.busy_share(), 1);
  const WorkerTimes::Clock::time_point start{};
  times.pack_begun(start + 5s);  // waiting for the first pack is nobody's fault
  times.pack_ended(start + 15s);
  EXPECT_EQ(times.busy_share(), 1);
  times.pack_begun(start + 16s);
  times.pack_ended(start + 20s);
  times.pack_begun(start + 25s);
  times.pack_ended(start + 25s);
  EXPECT_EQ(times.packs(), 3u);
  EXPECT_DOUBLE_EQ(times.busy_s(), 14);
  EXPECT_DOUBLE_EQ(times.span_s(), 20);
  EXPECT_DOUBLE_EQ(times.busy_share(), 0.7);
  EXPECT_DOUBLE_EQ(times.gap_s(0), 1);
  EXPECT_DOUBLE_EQ(times.gap_s(1), 5);
}

}  // namespace
}  // namespace fusion
