#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::Process;
using testing::System;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// A worker on a GPU that only the management library of tests/workers/devices has ever seen; it takes scores from a formula.
class DevicesTest : public ::testing::Test {
 protected:
  void say(const std::string& gpus) { write_atomically(system_.folder() / "gpus", gpus); }
  std::map<std::string, std::string> environment() const {
    return {{"FUSION_NVML", FAKE_NVML_LIBRARY}, {"FAKE_NVML", (system_.folder() / "gpus").string()}};
  }
  std::unique_ptr<Process> worker(const std::string& name, const std::string& device) {
    return system_.simulated_worker(name, {"--device", device, "--pack", "2", "--simulate-epoch-s", "0.2"}, "formula", environment());
  }
  /// What `fusionctl workers --json` says, once it has this in it.
  std::string workers_with(const std::string& text) {
    std::string seen;
    system_.wait_until([&] { return (seen = system_.ctl_json({"workers"}).dump()).find(text) != std::string::npos; });
    return seen;
  }

  System system_;
};

TEST_F(DevicesTest, AFullGpuIsRefusedUntilThereIsRoomAndALostOneLosesNothing) {
  say("GPU-aa - 80000 100 97 61 0 0 101:79900\n");
  system_.start(0);
  const auto study = system_.submit(System::small_study());
  const auto at_work = worker("w", "cuda:0");
  EXPECT_THAT(workers_with("cuda:0 is full"), HasSubstr("GPU-aa"));
  EXPECT_EQ(system_.sql("select count(*) from trials where state = 'completed'")[0][0], 0);
  EXPECT_THAT(system_.ctl({"workers"}).out, AllOf(HasSubstr("NVIDIA Fake 1 97 %, 100 of 80000 MB free, 61 C, 1 others"),
                                                  HasSubstr("memory is held by process 101 (79900 MB)")));
  say("GPU-aa - 80000 79000 1 40 0 0\n");
  system_.wait_for_completed(study, 4);
  say("GPU-aa - 80000 79000 1 40 15 0\n");
  EXPECT_EQ(at_work->wait(std::chrono::seconds(60)), 1);
  EXPECT_THAT(at_work->err(), HasSubstr("GPU-aa is lost"));
  const auto elsewhere = worker("elsewhere", "cpu");
  EXPECT_EQ(system_.wait_for(study), "completed");
  EXPECT_THAT(elsewhere->err(), HasSubstr("the device is cpu, which is not watched"));
  EXPECT_EQ(system_.sql("select count(*), count(distinct told_index) from trials where state = 'completed' and failures = 0")[0], json::array({27, 27}));
  EXPECT_EQ(system_.stop(), 0);
}

TEST_F(DevicesTest, ThePackFollowsTheFreeMemoryBothWays) {
  say("GPU-aa - 80000 1100 1 40 0 0\n");
  system_.start(0);
  const auto at_work = system_.simulated_worker("w", {"--device", "cuda:0", "--simulate-epoch-s", "0.2"}, "formula", environment());
  const auto size = [&] {
    const json workers = system_.ctl_json({"workers"})["workers"];
    return workers.empty() ? json() : json::array({workers[0]["pack"], workers[0]["slots"]});
  };
  system_.wait_until([&] { return size() == json::array({16, 32}); });
  say("GPU-aa - 80000 79000 1 40 0 0\n");
  system_.wait_until([&] { return size() == json::array({256, 512}); });
  EXPECT_EQ(system_.wait_for(system_.submit(System::small_study())), "completed");
  say("GPU-aa - 80000 3000 1 40 0 0\n");
  system_.wait_until([&] { return size() == json::array({40, 80}); });
  EXPECT_EQ(system_.stop(), 0);
}

TEST_F(DevicesTest, TheInventoryIsListedAndADeviceThatIsNotThereIsRefused) {
  say("GPU-aa - 80000 100 97 61 0 0 101:79900\n");
  const Process::Options options{system_.folder().path(), environment()};
  const testing::Finished listed = testing::run({testing::program("fusion-worker"), "--list-devices"}, options);
  EXPECT_EQ(listed.status, 0) << listed.err;
  EXPECT_EQ(json::parse(listed.out).at("id"), "GPU-aa");
  const testing::Finished refused =
      testing::run({testing::program("fusion-worker"), "--connect", "http://127.0.0.1:9", "--device", "cuda:3", "--simulate", "formula"}, options);
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("cuda:3"));
}

}  // namespace
}  // namespace fusion
