// One of the processes that retrain a model together. fusion-worker starts it (tools/rank_team.h); people have no use for it.
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <thread>

#include "base/error.h"
#include "base/json_reader.h"
#include "base/log.h"
#include "model/device.h"
#include "tools/keep_freed_memory.h"
#include "tools/rank_channel.h"
#include "workers/train/export_model.h"
#include "workers/train/rank_group.h"
#include "workers/train/retrain.h"

namespace {

using namespace fusion;
using nlohmann::json;

struct Start {
  RankPlace place;
  std::string device;
  std::int64_t rows_at_once = 0;
  RetrainingJob job;
};

Start read_start(const json& message) {
  JsonProblems problems;
  JsonReader all(message, "start", problems);
  JsonReader reader = all.object("start");
  Start start;
  start.place.rank = static_cast<int>(reader.integer("rank", 0, INT32_MAX));
  start.place.ranks = static_cast<int>(reader.integer("ranks", 1, INT32_MAX));
  start.place.meeting = reader.text("meeting");
  start.place.timeout = std::chrono::seconds(reader.integer("timeout_s", 1, INT32_MAX));
  start.device = reader.text("device");
  start.rows_at_once = reader.integer("rows_at_once", 1, INT32_MAX);
  JsonReader job = reader.object("job", true);
  start.job = RetrainingJob::read(job);
  problems.throw_if_any();
  return start;
}

/// The worker's words from then on; without a worker there is nothing to do any more.
void hear_worker(RankChannel& channel, std::stop_source& hand_back) {
  for (json message = channel.receive(); !message.is_null(); message = channel.receive()) {
    if (message.contains("hand_back")) hand_back.request_stop();
  }
  ::_exit(3);
}

RetrainingOutcome work(const Start& start, const RankChannel& channel, const std::stop_source& hand_back) {
  RetrainingOutcome outcome;
  outcome.retraining = start.job.retraining;
  outcome.attempt = start.job.attempt;
  try {
    const RankGroup group(start.place, device_from_text(start.device));
    RetrainContext context;
    context.device = start.device;
    context.group = &group;
    context.rows_at_once = start.rows_at_once;
    if (start.place.rank == 0) {
      context.hand_back = hand_back.get_token();
      context.on_epoch = [&](const RetrainingEpoch& epoch) { channel.send({{"epoch", epoch.to_json()}}); };
      context.on_progress = [&](const RetrainingProgress& progress) { channel.send({{"progress", progress.to_json()}}); };
      context.export_model = export_model;
    }
    return retrain(start.job, context);
  } catch (const RankError& error) {
    outcome.outcome = Outcome::preempted;
    outcome.error = error.what();
  } catch (const std::exception& error) {
    outcome.outcome = Outcome::failed;
    outcome.error = error.what();
  }
  return outcome;
}

}  // namespace

int main() {
  // The worker decides when its ranks end: signals to all processes of a job are for it.
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) ::signal(number, SIG_IGN);
  keep_freed_memory();
  int type = 0;
  socklen_t size = sizeof type;
  if (::getsockopt(STDIN_FILENO, SOL_SOCKET, SO_TYPE, &type, &size) != 0) {
    std::fprintf(stderr, "fusion-rank: is started by fusion-worker, for fusionctl retrain --gpus N, and does nothing by itself\n");
    return 2;
  }
  configure_logs("info");
  RankChannel incoming(STDIN_FILENO);
  const RankChannel outgoing(::dup(STDIN_FILENO));  // the other thread has the first one
  const json first = incoming.receive();
  if (first.is_null()) return 3;
  try {
    const Start start = read_start(first);
    std::stop_source hand_back;
    std::thread(hear_worker, std::ref(incoming), std::ref(hand_back)).detach();
    outgoing.send({{"outcome", work(start, outgoing, hand_back).to_json()}});
    std::fflush(nullptr);
    ::_exit(0);
  } catch (const ConfigError& error) {  // of another release than the worker
    std::fprintf(stderr, "fusion-rank: %s\n", error.what());
    return 2;
  }
}
