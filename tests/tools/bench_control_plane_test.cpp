#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/end_to_end/process.h"
#include "tests/slowness.h"
#include "tests/temporary_folder.h"

namespace fusion::testing {
namespace {

using nlohmann::json;

json last_line(const std::string& text) {
  const std::size_t end = text.find_last_not_of('\n');
  if (end == std::string::npos) return nullptr;
  const std::size_t begin = text.rfind('\n', end);
  return json::parse(text.substr(begin == std::string::npos ? 0 : begin + 1), nullptr, false);
}

Finished bench(const TemporaryFolder& folder, std::vector<std::string> arguments) {
  std::vector<std::string> command{program("bench_control_plane"), "--folder", folder.path().string()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run(command, {folder.path(), {}}, std::chrono::seconds(280 * slowness()));
}

// Every acknowledgement is looked up in the database by the benchmark itself, after the daemon was killed: it exits 2 if one is missing.
TEST(BenchControlPlaneTest, HasEveryFigureAndFindsEveryAcknowledgementInTheDatabase) {
  const TemporaryFolder folder;
  const Finished finished = bench(folder, {"--quick", "--json", "--latency-s", std::to_string(0.3 * slowness()), "--python", "/nonexistent/python"});
  ASSERT_EQ(finished.status, 0) << finished.err;
  const json figures = last_line(finished.out);
  ASSERT_TRUE(figures.is_object()) << finished.out;
  for (const char* name : {"trials_per_s", "flatness", "daemon_us_per_trial", "dispatch_p99_ms", "idle_p99_ms", "reports_per_s", "reader_ratio",
                           "query_ms", "start_ms", "start_ended_ms", "idle_resident_mb", "syncs_per_s"}) {
    EXPECT_TRUE(figures.contains(name) && figures[name].is_number() && figures[name] > 0) << name << ": " << finished.out;
  }
  EXPECT_TRUE(figures.at("vs_optuna").is_null());
  EXPECT_NE(finished.err.find("python3-optuna"), std::string::npos) << finished.err;
  EXPECT_EQ(figures.at("/phases/trials/trials"_json_pointer), 300);
}

TEST(BenchControlPlaneTest, RefusesAPhaseThatDoesNotExist) {
  const TemporaryFolder folder;
  const Finished finished = bench(folder, {"--phases", "trials,sleep"});
  EXPECT_EQ(finished.status, 2);
  EXPECT_NE(finished.err.find("\"sleep\""), std::string::npos) << finished.err;
}

}  // namespace
}  // namespace fusion::testing
