#include "tools/worker_surroundings.h"

#include <chrono>
#include <cstdint>
#include <cstdlib>

#include "base/log.h"
#include "security/credentials.h"
#include "workers/client/batch_job.h"

namespace fusion {

namespace {

constexpr double kLongest = 10.0 * 365 * 86'400;

std::chrono::milliseconds milliseconds_of(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

}  // namespace

void WorkerSurroundings::add_options(CLI::App& app) {
  if (const char* url = std::getenv("FUSION_URL")) url_ = url;
  app.add_option("--connect", url_, "The daemon, http:// or https:// (or the environment's FUSION_URL)")->capture_default_str();
  app.add_option("--token-file", token_file_, "A file with the worker's token, mode 0600 (or the environment's FUSION_TOKEN, or FUSION_TOKEN_FILE)");
  app.add_option("--ca", ca_file_, "For https: a PEM file with the authority of the daemon's certificate (or the environment's FUSION_CA) [the system's]");
  app.add_option("--grace-s,--grace", grace_s_, "After a signal to leave, how many seconds trials in training may go on before they are given back")
      ->check(CLI::Range(0.0, 86'400.0))
      ->capture_default_str();
  app.add_option("--wall-time", wall_time_s_,
                 "Seconds this worker has: it takes nothing that it cannot finish in them, and leaves in time [what Slurm says, else no limit]")
      ->check(CLI::Range(0.0, kLongest));
  app.add_option("--first-pack-time", first_pack_s_,
                 "With a wall time: seconds that must be left for a first pack, or an epoch of a retraining, of which nothing is known")
      ->check(CLI::Range(0.0, 86'400.0))
      ->capture_default_str();
  app.add_option("--leave-status", leave_status_, "Exit status after a signal to leave, or at the end of the wall time (for Slurm's RequeueExit)")
      ->check(CLI::Range(0, 125))
      ->capture_default_str();
}

void WorkerSurroundings::apply(WorkerClientOptions& options) const {
  options.url = parse_daemon_url(url_);
  options.token = token_to_show(token_file_);
  options.ca_file = ca_file_or_environment(ca_file_);
  options.grace = milliseconds_of(grace_s_);
  options.wall.first = milliseconds_of(first_pack_s_);
  const BatchJob job = read_batch_job();
  options.job = job.job;
  options.node = job.node;
  if (job.left) options.wall.left = *job.left;
  if (wall_time_s_ >= 0) options.wall.left = milliseconds_of(wall_time_s_);
  if (job.job.empty() && !options.wall.left) return;
  logger("worker")->info("surroundings job={} node={} restarts={} wall_time_s={}", job.job.empty() ? "-" : job.job,
                         job.node.empty() ? "-" : job.node, job.restarts,
                         options.wall.left ? std::to_string(options.wall.left->count() / 1000) : "none");
}

int WorkerSurroundings::exit_status(WorkerEnd end) const {
  switch (end) {
    case WorkerEnd::drained: return 0;
    case WorkerEnd::device_lost: return 1;
    case WorkerEnd::asked:
    case WorkerEnd::time_over: return leave_status_;
  }
  return 0;
}

}  // namespace fusion
