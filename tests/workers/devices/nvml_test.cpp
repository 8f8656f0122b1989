#include "workers/devices/nvml.h"

#include <gmock/gmock.h>

#include "tests/workers/devices/fake_gpus.h"

namespace fusion {
namespace {

using testing::FakeGpus;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kTwo =
    "GPU-aa - 80000 79000 97 61 0 0 101:600 102:400\n"
    "GPU-bb - 80000 80000 0 35 0 1\n"
    "MIG-b1 GPU-bb 20000 19000 0 0 0 0 103:900\n"
    "MIG-b2 GPU-bb 20000 20000 0 0 0 0\n";

TEST(NvmlTest, ReadsWhatTheLibrarySays) {
  const FakeGpus gpus(kTwo);
  std::string why;
  const auto nvml = Nvml::open(why);
  ASSERT_TRUE(nvml) << why;
  EXPECT_THAT(nvml->gpus(), ElementsAre("GPU-aa", "GPU-bb"));
  const GpuReading a = nvml->read("GPU-aa");
  EXPECT_EQ(a.model, "NVIDIA Fake 1");
  EXPECT_EQ(a.memory_mb, 80'000);
  EXPECT_EQ(a.free_mb, 79'000);
  EXPECT_EQ(a.utilisation_percent, 97);
  EXPECT_EQ(a.temperature_c, 61);
  ASSERT_EQ(a.processes.size(), 2u);
  EXPECT_EQ(a.processes[1].pid, 102);
  EXPECT_EQ(a.processes[1].memory_mb, 400);
  EXPECT_FALSE(a.mig_enabled || a.lost);
  EXPECT_EQ(a.problem, "");
}

TEST(NvmlTest, ASliceHasMemoryOfItsOwnAndTheRestOfItsGpu) {
  const FakeGpus gpus(kTwo);
  std::string why;
  const auto nvml = Nvml::open(why);
  ASSERT_TRUE(nvml) << why;
  EXPECT_THAT(nvml->slices("GPU-bb"), ElementsAre("MIG-b1", "MIG-b2"));
  EXPECT_TRUE(nvml->slices("GPU-aa").empty());
  const GpuReading slice = nvml->read("MIG-b1");
  EXPECT_EQ(slice.memory_mb, 20'000);
  EXPECT_EQ(slice.temperature_c, 35);
  EXPECT_EQ(slice.processes.size(), 1u);
  EXPECT_FALSE(slice.mig_enabled);
  EXPECT_TRUE(nvml->read("GPU-bb").mig_enabled);
}

TEST(NvmlTest, MoreProcessesThanWereExpectedAreAllRead) {
  std::string line = "GPU-aa - 80000 1 0 0 0 0";
  for (int i = 1; i <= 100; ++i) line += " " + std::to_string(1000 + i) + ":1";
  const FakeGpus gpus(line + "\n");
  std::string why;
  const auto nvml = Nvml::open(why);
  ASSERT_TRUE(nvml) << why;
  EXPECT_EQ(nvml->read("GPU-aa").processes.size(), 100u);
}

TEST(NvmlTest, AGpuThatDisappearsIsLostWithASentence) {
  FakeGpus gpus(kTwo);
  std::string why;
  const auto nvml = Nvml::open(why);
  ASSERT_TRUE(nvml) << why;
  gpus.say("GPU-aa - 80000 79000 0 0 15 0\n");
  EXPECT_TRUE(nvml->read("GPU-aa").lost);
  EXPECT_THAT(nvml->read("GPU-aa").problem, AllOf(HasSubstr("GPU-aa is lost: GPU is lost"), HasSubstr("nvidia-smi --gpu-reset")));
  EXPECT_TRUE(nvml->read("GPU-bb").lost);
  EXPECT_THAT(nvml->read("GPU-bb").problem, HasSubstr("not there any more"));
  gpus.say("GPU-aa - 80000 79000 0 0 999 0\n");
  EXPECT_FALSE(nvml->read("GPU-aa").lost);
  EXPECT_THAT(nvml->read("GPU-aa").problem, HasSubstr("cannot be read"));
}

TEST(NvmlTest, WithoutTheLibraryThereIsASentence) {
  std::string why;
  EXPECT_FALSE(Nvml::open(why, "libno-such-library.so.1"));
  EXPECT_THAT(why, AllOf(HasSubstr("libno-such-library.so.1"), HasSubstr("not watched")));
  EXPECT_FALSE(Nvml::open(why, "libc.so.6"));
  EXPECT_THAT(why, HasSubstr("no management library"));
  const FakeGpus gpus(kTwo);
  ::setenv("FAKE_NVML_INIT", "9", 1);
  EXPECT_FALSE(Nvml::open(why));
  EXPECT_THAT(why, HasSubstr("Driver Not Loaded"));
  ::unsetenv("FAKE_NVML_INIT");
}

}  // namespace
}  // namespace fusion
