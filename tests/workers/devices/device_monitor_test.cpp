#include "workers/devices/device_monitor.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <atomic>
#include <future>

#include "base/error.h"
#include "tests/workers/devices/fake_gpus.h"

namespace fusion {
namespace {

using testing::FakeGpus;
using ::testing::AllOf;
using ::testing::HasSubstr;

GpuReading reading(std::int64_t free_mb, std::vector<GpuReading::Process> processes = {}) {
  GpuReading reading;
  reading.id = "GPU-aa";
  reading.model = "NVIDIA Fake 1";
  reading.memory_mb = 80'000;
  reading.free_mb = free_mb;
  reading.processes = std::move(processes);
  return reading;
}
DeviceOptions on(const std::string& device) {
  DeviceOptions options;
  options.device = device;
  return options;
}
std::string problem_of_start(const std::string& device) {
  try {
    const DeviceMonitor monitor(on(device));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(DeviceVerdictTest, OwnMemoryCountsAsFreeAndTheShareIsALimit) {
  const DeviceVerdict alone = judge(reading(100, {{7, 70'000}, {8, 9'000}}), on("cuda:0"), 7);
  EXPECT_EQ(alone.usable_mb, 70'100);
  EXPECT_EQ(alone.device.others, 1);
  EXPECT_EQ(alone.device.free_mb, 100);
  EXPECT_EQ(alone.device.problem, "");
  DeviceOptions quarter = on("cuda:0");
  quarter.memory_share = 0.25;
  EXPECT_EQ(judge(reading(79'000), quarter, 7).usable_mb, 20'000);
  EXPECT_EQ(judge(reading(3'000), quarter, 7).usable_mb, 3'000);
}

TEST(DeviceVerdictTest, WhoCannotBeToldFromOthersTakesItsShare) {
  const DeviceVerdict seen = judge(reading(80, {{101, 79'000}, {7, 900}}), on("cuda:0"), 7, true);
  EXPECT_EQ(seen.usable_mb, 980);
  EXPECT_EQ(seen.device.others, 1);
  const DeviceVerdict unseen = judge(reading(80, {{4101, 79'000}, {4102, 900}}), on("cuda:0"), 7, true);
  EXPECT_EQ(unseen.usable_mb, 80'000);
  EXPECT_EQ(unseen.device.others, std::nullopt);
  EXPECT_EQ(unseen.device.problem, "");
}

TEST(DeviceVerdictTest, AFullGpuSaysWhoHoldsIt) {
  const DeviceVerdict full = judge(reading(80, {{101, 79'000}, {102, std::nullopt}}), on("cuda:0"), 7);
  EXPECT_THAT(full.device.problem, AllOf(HasSubstr("cuda:0 is full: 80 of 80000 MB"), HasSubstr("at least 512"),
                                         HasSubstr("process 101 (79000 MB), process 102"), HasSubstr("takes nothing")));
  EXPECT_FALSE(full.lost);
  GpuReading cut = reading(80'000);
  cut.mig_enabled = true;
  EXPECT_THAT(judge(cut, on("cuda:0"), 7).device.problem, HasSubstr("MIG slices"));
}

TEST(DeviceMonitorTest, WithoutAGpuOrNvmlItIsBlindAndSaysWhy) {
  const DeviceMonitor cpu(on("cpu"));
  EXPECT_FALSE(cpu.read());
  EXPECT_THAT(cpu.blind(), HasSubstr("cpu"));
  DeviceOptions absent = on("cuda:0");
  absent.nvml = "libno-such-library.so.1";
  const DeviceMonitor without(absent);
  EXPECT_FALSE(without.read());
  EXPECT_THAT(without.blind(), HasSubstr("libno-such-library.so.1"));
}

TEST(DeviceMonitorTest, TheDeviceIsOneOfThoseThatAreVisible) {
  const FakeGpus gpus("GPU-aa - 80000 70000 0 30 0 0\nGPU-bb - 40000 30000 0 31 0 0\n");
  EXPECT_EQ(DeviceMonitor(on("cuda:1")).read()->device.id, "GPU-bb");
  ::setenv("CUDA_VISIBLE_DEVICES", "GPU-bb", 1);
  EXPECT_EQ(DeviceMonitor(on("cuda")).read()->device.id, "GPU-bb");
  EXPECT_THAT(problem_of_start("cuda:1"), AllOf(HasSubstr("cuda:1"), HasSubstr("CUDA_VISIBLE_DEVICES names 1"), HasSubstr("of 2 on this host")));
  ::setenv("CUDA_VISIBLE_DEVICES", "", 1);
  EXPECT_THAT(problem_of_start("cuda:0"), HasSubstr("hides every GPU"));
  ::unsetenv("CUDA_VISIBLE_DEVICES");
  EXPECT_THAT(problem_of_start("cuda:2"), HasSubstr("there are 2"));
}

TEST(DeviceMonitorTest, WhoWatchesHearsOfAGpuThatFillsAndOfOneThatIsLost) {
  FakeGpus gpus("GPU-aa - 80000 70000 40 30 0 0\n");
  DeviceOptions options = on("cuda:0");
  options.every = std::chrono::milliseconds(5);
  std::promise<void> free, full, lost;
  std::atomic<int> stage{0};
  {
    DeviceMonitor monitor(options);
    monitor.watch([&](const DeviceVerdict& verdict) {
      if (stage == 0 && verdict.device.problem.empty()) stage = 1, free.set_value();
      else if (stage == 1 && !verdict.device.problem.empty() && !verdict.lost) stage = 2, full.set_value();
      else if (stage == 2 && verdict.lost) stage = 3, lost.set_value();
    });
    const auto soon = std::chrono::seconds(60);
    ASSERT_EQ(free.get_future().wait_for(soon), std::future_status::ready);
    gpus.say("GPU-aa - 80000 100 40 30 0 0 101:79000\n");
    ASSERT_EQ(full.get_future().wait_for(soon), std::future_status::ready);
    gpus.say("GPU-aa - 80000 100 40 30 15 0\n");
    ASSERT_EQ(lost.get_future().wait_for(soon), std::future_status::ready);
  }
  EXPECT_EQ(stage, 3);
}

TEST(DeviceMonitorTest, TheInventoryHasSlicesBehindTheirGpu) {
  const FakeGpus gpus("GPU-aa - 80000 70000 0 30 0 1\nMIG-a1 GPU-aa 20000 20000 0 0 0 0\nGPU-bb - 40000 30000 0 31 0 0\n");
  std::string why, ids;
  for (const GpuReading& gpu : list_devices(why)) ids += gpu.id + " ";
  EXPECT_EQ(ids, "GPU-aa MIG-a1 GPU-bb ");
  EXPECT_EQ(why, "");
}

}  // namespace
}  // namespace fusion
