#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <thread>

#include "base/files.h"
#include "tests/end_to_end/small_features.h"
#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::Process;
using testing::System;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

/// A worker that reads nothing but what it fetches.
std::unique_ptr<Process> fetching_worker(System& system, const std::string& name, const std::vector<std::string>& more = {}) {
  std::vector<std::string> command{testing::program("fusion-worker"), "--name", name, "--blobs", "always", "--cache", (system.folder() / "cache").string()};
  command.insert(command.end(), more.begin(), more.end());
  return std::make_unique<Process>(command, system.options());
}

void flip_a_bit(const fs::path& file) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(-1, std::ios::end);
  const char last = static_cast<char>(stream.get());
  stream.seekp(-1, std::ios::end);
  stream.put(static_cast<char>(last ^ 1));
}

json random_study(const std::string& name, const std::string& dataset) {
  json study = System::small_study();
  study["name"] = name;
  study["dataset"] = dataset;
  study["strategy"] = {{"name", "random"}, {"trials", 6}};
  return study;
}

TEST(BlobsTest, WhatIsFetchedGivesTheScoresOfWhatIsShared) {
  json scores[2];
  for (int fetched = 0; fetched < 2; ++fetched) {
    System system;
    system.start(fetched == 1 ? 0 : 2);
    const auto study = system.submit(System::small_study());
    std::unique_ptr<Process> workers[2];
    for (int i = 0; fetched == 1 && i < 2; ++i) workers[i] = fetching_worker(system, "w" + std::to_string(i));
    EXPECT_EQ(system.wait_for(study), "completed");
    scores[fetched] = system.sql("select ask_index, architecture, seed, dev_score from trials order by ask_index");
    EXPECT_EQ(fs::exists(system.folder() / "cache"), fetched == 1);
    EXPECT_EQ(system.stop(), 0);
  }
  EXPECT_EQ(scores[0].size(), 27u);
  EXPECT_EQ(scores[0], scores[1]);
}

TEST(BlobsTest, ADamagedFileHoldsUpItsOwnStudyAndFailsNoTrial) {
  System system;
  system.start(0);
  testing::write_small_features(system.folder() / "other", {.seed = 3});
  const auto damaged = system.submit(random_study("damaged", "features/features.json"));
  const auto healthy = system.submit(random_study("healthy", "other/features.json"));
  const fs::path file = system.folder() / "features/train-audio-small.safetensors";
  flip_a_bit(file);
  const auto worker = fetching_worker(system, "w");
  EXPECT_EQ(system.wait_for(healthy), "completed");
  const auto told = [&system] { return system.sql("select count(*) from events where kind = 'worker_blocked'")[0][0] != 0; };
  for (int i = 0; i < 1200 && !told(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_THAT(system.sql("select text from events where kind = 'worker_blocked' limit 1")[0][0].get<std::string>(),
              HasSubstr("train-audio-small.safetensors"));
  EXPECT_EQ(system.sql("select state from studies where id = " + std::to_string(damaged))[0][0], "running");
  flip_a_bit(file);
  EXPECT_EQ(system.wait_for(damaged), "completed");
  EXPECT_EQ(system.sql("select count(*) from trials where state <> 'completed' or failures > 0")[0][0], 0);
  EXPECT_TRUE(worker->running());
  EXPECT_EQ(system.stop(), 0);
}

TEST(BlobsTest, ACacheThatIsTooSmallIsSaidWhereOneLooks) {
  System system;
  system.start(0);
  const auto study = system.submit(random_study("small", "features/features.json"));
  const auto worker = fetching_worker(system, "w", {"--cache-gb", "0.00001"});
  std::string text;
  for (int i = 0; i < 1200 && text.find("--cache-gb") == std::string::npos; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    text = system.ctl_json({"workers"}).dump();
  }
  EXPECT_THAT(text, HasSubstr("has no room for a blob"));
  const auto roomy = fetching_worker(system, "roomy");
  EXPECT_EQ(system.wait_for(study), "completed") << "it went on elsewhere";
  EXPECT_EQ(system.sql("select count(*) from trials where failures > 0")[0][0], 0);
  EXPECT_EQ(system.stop(), 0);
}

}  // namespace
}  // namespace fusion
