#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace fusion {

/// What a batch system says of the job that this process runs in; everything empty outside of one.
struct BatchJob {
  std::string job;   ///< "4711"; of an array "4711_3", as squeue shows it
  std::string node;  ///< its name for this host
  int restarts = 0;  ///< how often it was requeued: the same job id may then be on another host, the old one still running
  std::optional<std::chrono::seconds> left;  ///< until its time limit, at the time of the call; none: no limit, or nobody knows
};

/// Reads SLURM_JOB_ID, SLURM_ARRAY_JOB_ID and SLURM_ARRAY_TASK_ID, SLURMD_NODENAME, SLURM_RESTART_COUNT, SLURM_JOB_END_TIME. Where the last
/// is absent (Slurm before 23), `squeue` is asked once for the time that is left.
BatchJob read_batch_job();

/// The same with the environment, the clock (seconds since 1970) and the command's output (nullopt: it could not be run) given.
BatchJob read_batch_job(const std::function<const char*(const char*)>& environment, std::int64_t now_s,
                        const std::function<std::optional<std::string>(const std::string& job)>& squeue_time_left);

/// What squeue prints for %L: "1-02:03:04", "2:03:04", "03:04", "4"; nullopt for UNLIMITED, NOT_SET, INVALID and anything else.
std::optional<std::chrono::seconds> parse_slurm_time(std::string_view text);

}  // namespace fusion
