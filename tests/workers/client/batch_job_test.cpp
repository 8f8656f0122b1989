#include "workers/client/batch_job.h"

#include <gtest/gtest.h>

#include <map>

namespace fusion {
namespace {

using std::chrono::seconds;

/// A job of this environment at 1000 s after 1970; `squeue` answers as given.
BatchJob job_of(const std::map<std::string, std::string>& environment, std::optional<std::string> squeue = std::nullopt) {
  const auto get = [&](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  };
  return read_batch_job(get, 1000, [&](const std::string&) { return squeue; });
}

TEST(BatchJobTest, OutsideOfABatchSystemThereIsNothing) {
  const BatchJob job = job_of({{"SLURM_JOB_END_TIME", "1600"}, {"SLURMD_NODENAME", "n1"}}, "5:00");
  EXPECT_EQ(job.job, "");
  EXPECT_EQ(job.node, "");
  EXPECT_FALSE(job.left);
}

TEST(BatchJobTest, AnArrayElementIsNamedAsSqueueShowsIt) {
  const BatchJob job = job_of({{"SLURM_JOB_ID", "4714"},
                               {"SLURM_ARRAY_JOB_ID", "4711"},
                               {"SLURM_ARRAY_TASK_ID", "3"},
                               {"SLURMD_NODENAME", "gpu7"},
                               {"SLURM_RESTART_COUNT", "2"},
                               {"SLURM_JOB_END_TIME", "1600"}});
  EXPECT_EQ(job.job, "4711_3");
  EXPECT_EQ(job.node, "gpu7");
  EXPECT_EQ(job.restarts, 2);
  EXPECT_EQ(job.left, seconds(600));
}

TEST(BatchJobTest, WhereSlurmSaysNoEndSqueueIsAsked) {
  EXPECT_EQ(job_of({{"SLURM_JOB_ID", "4711"}}, "1-00:00:05\n").left, seconds(86'405));
  EXPECT_FALSE(job_of({{"SLURM_JOB_ID", "4711"}}, "UNLIMITED\n").left);
  EXPECT_FALSE(job_of({{"SLURM_JOB_ID", "4711"}}).left) << "squeue could not be run";
  EXPECT_EQ(job_of({{"SLURM_JOB_ID", "4711"}, {"SLURM_JOB_END_TIME", "900"}}).left, seconds(0)) << "over";
}

TEST(BatchJobTest, AJobIdThatIsNoNumberReachesNoCommandLine) {
  bool asked = false;
  const auto environment = [](const char* name) { return std::string(name) == "SLURM_JOB_ID" ? "1; rm -rf x" : nullptr; };
  read_batch_job(environment, 0, [&](const std::string&) {
    asked = true;
    return std::nullopt;
  });
  EXPECT_FALSE(asked);
}

TEST(BatchJobTest, ReadsEveryFormOfATime) {
  EXPECT_EQ(parse_slurm_time("4"), seconds(4));
  EXPECT_EQ(parse_slurm_time("03:04"), seconds(184));
  EXPECT_EQ(parse_slurm_time("2:03:04"), seconds(7384));
  EXPECT_EQ(parse_slurm_time("1-02:03:04"), seconds(93'784));
  for (const char* text : {"", "-", "1-", ":", "1:2:3:4", "INVALID", "NOT_SET", "-5", "1:x"}) EXPECT_FALSE(parse_slurm_time(text)) << text;
}

}  // namespace
}  // namespace fusion
