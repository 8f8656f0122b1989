#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/files.h"
#include "tests/end_to_end/system.h"
#include "tests/private_slurm.h"
#include "tests/slowness.h"

namespace fusion::testing {

/// Of the studies below.
inline constexpr int kTrials = 28;

/// FUSION_LONG_TESTS=1 also runs what takes a minute each because Slurm's own times do.
inline bool long_form() {
  const char* const wanted = std::getenv("FUSION_LONG_TESTS");
  return wanted != nullptr && std::string(wanted) == "1";
}

/// A daemon with pools, each of whose workers simulates.
class PoolTest : public ::testing::Test {
 protected:
  using json = nlohmann::json;

  void TearDown() override {
    if ((HasFailure() || long_form()) && started) std::fprintf(stderr, "%s\n", system.daemon().err().c_str());
  }
  /// One worker for each trial, on the CPU whatever the job asked for: there are no real GPUs.
  json pool(double epoch_s) const {
    return {{"name", "gpu"},
            {"launcher", "slurm"},
            {"max", 4},
            {"gpus_per_worker", 1},
            {"device", "cpu"},
            {"trials_per_worker", 1},
            {"shrink_after_s", 2},
            {"worker_program", std::filesystem::absolute(program("fusion-worker")).string()},
            {"worker_args", {"--simulate", "formula", "--simulate-epoch-s", std::to_string(slowness() * epoch_s), "--pack", "1", "--slots", "1"}}};
  }
  json local_pool(double epoch_s) const {
    return {{"name", "here"}, {"launcher", "local"}, {"max", 2}, {"trials_per_worker", 1}, {"shrink_after_s", 1},
            {"worker_program", pool(0)["worker_program"]}, {"worker_args", pool(epoch_s)["worker_args"]}};
  }
  void start(const std::vector<json>& pools, std::map<std::string, std::string> more = {}) {
    write_atomically(system.folder() / "daemon.json", json{{"pools", pools}, {"slurm", slurm_times}}.dump());
    more["--config"] = (system.folder() / "daemon.json").string();
    more.try_emplace("--lease-s", "4");
    system.start(0, more);
    started = true;
  }
  std::int64_t submit() {
    json study = System::small_study();
    study["space"] = {{"steps", {{"max", 3}}}};
    study["strategy"] = {{"name", "random"}, {"trials", kTrials}};
    return system.submit(study);
  }
  template <typename Condition>
  void until(Condition condition, std::chrono::seconds limit = std::chrono::seconds(180)) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << system.ctl({"workers"}).out;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
  json workers() { return system.ctl_json({"workers"}); }
  json pool_now(std::size_t index = 0) { return workers().at("pools").at(index); }
  void until_connected(std::size_t count) {
    until([&] { return workers().at("workers").size() >= count; });
  }
  std::set<std::string> jobs_of_workers() {
    std::set<std::string> jobs;
    const json list = workers().at("workers");
    for (const json& worker : list) jobs.insert(worker.at("job"));
    return jobs;
  }
  std::int64_t completed() { return system.sql("select count(*) from trials where state = 'completed'")[0][0]; }
  void expect_each_scored_once() {
    EXPECT_EQ(completed(), kTrials);
    EXPECT_EQ(system.sql("select count(distinct told_index), min(told_index), max(told_index) from trials")[0], json::array({kTrials, 0, kTrials - 1}));
    EXPECT_EQ(system.sql("select count(*) from (select trial_id from attempts where outcome = 'completed' group by trial_id having count(*) = 1)")[0][0],
              kTrials);
    EXPECT_EQ(system.sql("select count(*) from attempts where outcome is null")[0][0], 0);
  }
  std::int64_t attempts(const std::string& outcome) {
    return system.sql("select count(*) from attempts where outcome = '" + outcome + "'")[0][0];
  }

  System system;
  json slurm_times{{"poll_s", 0.5}, {"steady_poll_s", 1}, {"absent_s", 2}, {"leave_s", 5}, {"retry_s", 0.5}};
  bool started = false;
};

/// The same beside a Slurm.
class SlurmTest : public PoolTest {
 protected:
  void SetUp() override {
    if (const std::string why = PrivateSlurm::missing(); !why.empty()) GTEST_SKIP() << why;
    slurm = std::make_unique<PrivateSlurm>();
    ::setenv("SLURM_CONF", slurm->environment().at("SLURM_CONF").c_str(), 1);
  }
  void TearDown() override {
    PoolTest::TearDown();
    ::unsetenv("SLURM_CONF");
  }
  std::vector<std::string> arrays() {
    std::vector<std::string> list = slurm->jobs("all", "%F");
    std::sort(list.begin(), list.end());
    return list;
  }

  std::unique_ptr<PrivateSlurm> slurm;
};

}  // namespace fusion::testing
