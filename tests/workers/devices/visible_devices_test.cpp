#include "workers/devices/visible_devices.h"

#include <gmock/gmock.h>

#include <map>

namespace fusion {
namespace {

using Kind = VisibleDevice::Kind;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Optional;

const std::vector<std::string> kGpus{"GPU-aa1", "GPU-ab2", "GPU-cc3"};

std::vector<std::string> slices(const std::string& gpu) {
  return gpu == "GPU-cc3" ? std::vector<std::string>{"MIG-c1", "MIG-c2"} : std::vector<std::string>{};
}
std::optional<std::string> id(int n, const std::string& visible) { return id_of_device(n, parse_visible_devices(visible), kGpus, slices); }

std::optional<std::vector<VisibleDevice>> visible_in(std::map<std::string, std::string> environment) {
  return visible_devices([&environment](const char* name) {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

TEST(VisibleDevicesTest, EveryFormIsRead) {
  EXPECT_THAT(parse_visible_devices("2, 0,GPU-5f0c,MIG-77aa,MIG-GPU-5f0c/1/0"),
              ElementsAre(VisibleDevice{Kind::index, 2, ""}, VisibleDevice{Kind::index, 0, ""}, VisibleDevice{Kind::gpu, 0, "GPU-5f0c"},
                          VisibleDevice{Kind::slice, 0, "MIG-77aa"}, VisibleDevice{Kind::slice, 0, "MIG-GPU-5f0c/1/0"}));
}

TEST(VisibleDevicesTest, BehindWhatIsNotLegalNothingCounts) {
  for (const char* none : {"", "-1", "NoDevFiles", "x,0", " ", ",0", "GPU-", "0x1"}) EXPECT_THAT(parse_visible_devices(none), IsEmpty()) << none;
  EXPECT_EQ(parse_visible_devices("1,-1,0").size(), 1u);
  EXPECT_EQ(parse_visible_devices("1,0,1,2").size(), 2u) << "a second time ends the list";
  EXPECT_EQ(parse_visible_devices("1,").size(), 1u);
}

TEST(VisibleDevicesTest, ANumberIsThatOfTheList) {
  EXPECT_THAT(id_of_device(1, std::nullopt, kGpus, slices), Optional(std::string("GPU-ab2")));
  EXPECT_EQ(id_of_device(3, std::nullopt, kGpus, slices), std::nullopt);
  EXPECT_THAT(id(0, "1,0"), Optional(std::string("GPU-ab2")));
  EXPECT_THAT(id(1, "1,0"), Optional(std::string("GPU-aa1")));
  EXPECT_EQ(id(2, "1,0"), std::nullopt);
  EXPECT_EQ(id(0, "7"), std::nullopt);
  EXPECT_EQ(id(0, ""), std::nullopt);
}

TEST(VisibleDevicesTest, AnIdMayBeShortIfItIsOneGpus) {
  EXPECT_THAT(id(0, "GPU-ab"), Optional(std::string("GPU-ab2")));
  EXPECT_EQ(id(0, "GPU-a"), std::nullopt) << "two begin so";
  EXPECT_EQ(id(0, "GPU-zz"), std::nullopt);
}

TEST(VisibleDevicesTest, AGpuInSlicesStandsForTheFirst) {
  EXPECT_THAT(id(0, "2"), Optional(std::string("MIG-c1")));
  EXPECT_THAT(id(0, "GPU-cc3"), Optional(std::string("MIG-c1")));
  EXPECT_THAT(id(1, "0,MIG-c2"), Optional(std::string("MIG-c2")));
}

TEST(VisibleDevicesTest, ASlurmJobWithoutGpusSeesNone) {
  EXPECT_EQ(visible_in({}), std::nullopt) << "no job: all";
  EXPECT_THAT(visible_in({{"SLURM_JOB_ID", "7"}}), Optional(IsEmpty()));
  EXPECT_THAT(visible_in({{"SLURM_JOB_ID", "7"}, {"SLURM_GPUS_ON_NODE", "0"}}), Optional(IsEmpty()));
  EXPECT_EQ(visible_in({{"SLURM_JOB_ID", "7"}, {"SLURM_JOB_GPUS", "0"}}), std::nullopt) << "GPU number 0";
  EXPECT_EQ(visible_in({{"SLURM_JOB_ID", "7"}, {"SLURM_GPUS_ON_NODE", "2"}}), std::nullopt);
  EXPECT_THAT(visible_in({{"SLURM_JOB_ID", "7"}, {"CUDA_VISIBLE_DEVICES", "1"}}), Optional(ElementsAre(VisibleDevice{Kind::index, 1, ""})));
}

}  // namespace
}  // namespace fusion
