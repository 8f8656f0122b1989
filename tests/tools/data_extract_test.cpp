// fusion-data extract as a program: killed in the middle and run again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <thread>

#include "base/files.h"
#include "model/lenet.h"
#include "tests/end_to_end/process.h"
#include "tests/temporary_folder.h"
#include "tests/workers/data/small_dataset.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using testing::Process;

/// A dataset of noise and backbones so wide that extraction takes some seconds.
class ExtractProgramTest : public ::testing::Test {
 protected:
  ExtractProgramTest() {
    nlohmann::json document = nlohmann::json::parse(R"({
      "format": "fusiond-dataset-1", "name": "noise", "classes": 3, "parameters": {},
      "modalities": [{"name": "big", "shape": [1, 48, 48], "mean": 100, "std": 50, "files": {"all": "big.npy"}},
                     {"name": "small", "shape": [1, 16, 16], "mean": 100, "std": 50, "files": {"all": "small.npy"}}],
      "labels": {"all": "labels.npy"},
      "splits": {"train": {"of": "all", "begin": 0, "end": 900}, "dev": {"of": "all", "begin": 900, "end": 1000}}})");
    write("big.npy", 48 * 48);
    write("small.npy", 16 * 16);
    std::vector<std::uint8_t> labels(kRows);
    for (std::size_t row = 0; row < labels.size(); ++row) labels[row] = static_cast<std::uint8_t>(row % 3);
    write_npy(folder_ / "labels.npy", {DType::u8, {kRows}, labels.data()});
    for (const char* file : {"big.npy", "small.npy", "labels.npy"}) document["sha256"][file] = sha256_of_file(folder_ / file);
    write_manifest(folder_ / "dataset.json", document);
    LeNetOptions options = LeNetOptions::image(40, 3);
    options.height = options.width = 48;
    LeNet(options, 1).save(folder_ / "backbones/big.safetensors");
    options.height = options.width = 16;
    LeNet(options, 2).save(folder_ / "backbones/small.safetensors");
  }

  void write(const std::string& name, std::int64_t numbers) const {
    std::vector<std::uint8_t> values(static_cast<std::size_t>(kRows * numbers));
    std::uint32_t state = 1;
    for (std::uint8_t& value : values) value = static_cast<std::uint8_t>((state = state * 1664525 + 1013904223) >> 24);
    write_npy(folder_ / name, {DType::u8, {kRows, numbers}, values.data()});
  }

  std::vector<std::string> command(const std::string& out, const std::string& threads) const {
    return {testing::program("fusion-data"), "extract", folder_ / "dataset.json", "--out", folder_ / out, "--batch", "20",
            "--dtype", "bf16", "--save-every", "0.05", "--threads", threads};
  }

  std::map<std::string, std::string> files(const std::string& out) const {
    std::map<std::string, std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / out)) {
      all[entry.path().filename().string()] = read_text(entry.path());
    }
    return all;
  }

  /// Saved rows of files that are not whole.
  std::set<std::string> parts(const std::string& out) const {
    std::set<std::string> names;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / out, none)) {
      if (entry.path().extension() == ".part") names.insert(entry.path().filename().string());
    }
    return names;
  }

  /// Starts, waits until rows are saved that were not there before, kills. False if it ended before.
  bool start_and_kill(const std::string& out) const {
    const std::set<std::string> before = parts(out);
    Process process(command(out, "2"), {folder_.path(), {}});
    while (process.running()) {
      const std::set<std::string> now = parts(out);
      if (std::any_of(now.begin(), now.end(), [&](const std::string& name) { return !before.contains(name); })) {
        process.signal(SIGKILL);
        EXPECT_EQ(process.wait(std::chrono::seconds(60)), 128 + SIGKILL);
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  }

  static constexpr std::int64_t kRows = 1000;
  testing::TemporaryFolder folder_;
};

TEST_F(ExtractProgramTest, GoesOnWhereItWasKilledAndGivesTheBytesOfAnUndisturbedRun) {
  const testing::Finished whole = testing::run(command("whole", "1"), {folder_.path(), {}});
  ASSERT_EQ(whole.status, 0) << whole.err;
  EXPECT_THAT(whole.out, Not(HasSubstr("earlier run")));
  EXPECT_THAT(whole.err, HasSubstr("extract: 2000 of 2000 rows"));

  int kills = 0;
  while (kills < 3 && start_and_kill("killed")) ++kills;
  ASSERT_GE(kills, 1);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "killed/features.json"));
  const testing::Finished last = testing::run(command("killed", "3"), {folder_.path(), {}});
  ASSERT_EQ(last.status, 0) << last.err;
  EXPECT_THAT(last.out, HasSubstr("rows of an earlier run went on"));
  EXPECT_EQ(files("killed"), files("whole"));  // nor is anything left over
}

TEST_F(ExtractProgramTest, ForgetsSavedRowsThatAreDamagedAndThoseOfOtherOptions) {
  ASSERT_EQ(testing::run(command("whole", "2"), {folder_.path(), {}}).status, 0);
  ASSERT_TRUE(start_and_kill("killed"));
  for (const std::string& name : parts("killed")) {
    const std::filesystem::path file = folder_ / "killed" / name;
    testing::flip_byte(file, static_cast<std::streamoff>(std::filesystem::file_size(file)) - 5);
  }
  const testing::Finished again = testing::run(command("killed", "2"), {folder_.path(), {}});
  ASSERT_EQ(again.status, 0) << again.err;
  EXPECT_THAT(again.out, Not(HasSubstr("earlier run")));
  EXPECT_EQ(files("killed"), files("whole"));

  ASSERT_TRUE(start_and_kill("other"));
  std::vector<std::string> full = command("other", "2");
  *std::find(full.begin(), full.end(), "bf16") = "f32";
  const testing::Finished other = testing::run(full, {folder_.path(), {}});
  ASSERT_EQ(other.status, 0) << other.err;
  EXPECT_THAT(other.out, Not(HasSubstr("earlier run")));
}

TEST_F(ExtractProgramTest, ShowsTypesAndSizes) {
  ASSERT_EQ(testing::run(command("whole", "2"), {folder_.path(), {}}).status, 0);
  const testing::Finished info = testing::run({testing::program("fusion-data"), "info", folder_ / "whole/features.json", "--json"}, {folder_.path(), {}});
  ASSERT_EQ(info.status, 0) << info.err;
  const nlohmann::json shown = nlohmann::json::parse(info.out);
  EXPECT_EQ(shown.at("modalities").at(1).at("dtype"), "bf16");
  std::uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "whole")) {
    if (entry.path().extension() == ".safetensors") bytes += entry.file_size();
  }
  EXPECT_EQ(shown.at("bytes"), bytes);
  EXPECT_GT(shown.at("file_bytes").at("train").at("big"), 900 * 2 * (40 + 80 + 160));

  std::vector<std::string> wrong = command("whole", "2");
  *std::find(wrong.begin(), wrong.end(), "bf16") = "f16";
  const testing::Finished refused = testing::run(wrong, {folder_.path(), {}});
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("--dtype: expected one of f32, bf16, got \"f16\""));
}

}  // namespace
}  // namespace fusion
