#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/digest.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "tests/slowness.h"
#include "workers/client/retraining_folder.h"
#include "workers/client/worker_client.h"

// counting_worker URL NAME [CACHE [PROCESSES [SECONDS]]]: a worker without LibTorch; with CACHE as on a host that shares no folder with the daemon. A
// retraining may have so many processes (0: any number); the worker lives so long. Its retraining is a state machine of one number: each epoch takes a while, adds the epoch's
// number to a sum, writes a checkpoint and reports. The model is a file with the sum, so that an epoch that was left out or counted twice shows.
namespace {

using namespace fusion;
using namespace std::chrono_literals;

struct Checkpoint {
  int epoch = 0;
  std::int64_t sum = 0;
};

Checkpoint read_checkpoint(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return {};
  const auto json = nlohmann::json::parse(read_text(file));
  return {json.at("epoch"), json.at("sum")};
}

double score_after(int epoch) { return std::min(0.9, 0.5 + 0.01 * epoch); }

RetrainingEpoch report_of(const Checkpoint& at) {
  return {at.epoch, at.epoch == 1 ? 1 : 2, 1.0 / at.epoch, 2.0 / at.epoch, score_after(at.epoch), 1e-3, 0.1, 100};
}

Artifact write_artifact(const std::filesystem::path& file, const std::string& text) {
  write_atomically(file, text);
  return {file.filename().string(), file.string(), static_cast<std::int64_t>(text.size()), sha256_of(text)};
}

RetrainingOutcome ended(Outcome how, const std::string& error) {
  RetrainingOutcome outcome;
  outcome.outcome = how;
  outcome.error = error;
  return outcome;
}

RetrainingOutcome finished(const RetrainingJob& job, const Checkpoint& at) {
  RetrainingOutcome outcome;
  outcome.score.emplace();
  outcome.score->dev_score = score_after(at.epoch);
  outcome.score->best_epoch = at.epoch;
  outcome.score->train_loss = 1.0 / at.epoch;
  outcome.score->parameters = at.sum;
  outcome.score->batch = job.options.batch;
  outcome.score->evaluation = {{"dev", {{"accuracy", 0.75}, {"confusion", {{3, 1}, {1, 3}}}}}, {"device", "cpu"}};
  const std::filesystem::path folder = job.folder;
  outcome.score->artifacts = {write_artifact(folder / "model.pt", "sum " + std::to_string(at.sum)),
                              write_artifact(folder / "model.safetensors", "weights " + std::to_string(at.sum)),
                              write_artifact(folder / "architecture.json", job.to_json().dump())};
  return outcome;
}

/// One epoch, in small pieces. False if it was told to stop amid it.
bool train_epoch(RetrainingSession& session, int epoch) {
  const int epochs = session.job().options.total_epochs();
  for (int piece = 0; piece < 10; ++piece) {
    if (session.cancel().stop_requested()) return false;
    session.on_progress({epoch, epochs, piece * 10, 100, 100, 0.1 * (epochs - epoch)});
    std::this_thread::sleep_for(testing::slowness() * 15ms);
  }
  return true;
}

/// `written` is called after each checkpoint.
RetrainingOutcome retrain(const RetrainingJob& job, RetrainingSession& session, const std::function<void()>& written) {
  const std::filesystem::path file = std::filesystem::path(job.folder) / "checkpoint.json";
  Checkpoint at = read_checkpoint(file);
  if (at.epoch > 0) session.on_epoch(report_of(at));
  while (at.epoch < job.options.total_epochs()) {
    if (session.hand_back().stop_requested()) return ended(Outcome::preempted, "handed back");
    if (!train_epoch(session, at.epoch + 1)) return ended(Outcome::cancelled, "told to stop");
    ++at.epoch;
    at.sum += at.epoch;
    write_atomically(file, nlohmann::json{{"epoch", at.epoch}, {"sum", at.sum}}.dump());
    written();
    session.on_epoch(report_of(at));
  }
  return finished(job, at);
}

void no_trials(PackSession& session) { session.end_rest(Outcome::failed, "this worker only retrains"); }

}  // namespace

int main(int argc, char** argv) {
  configure_logs("info");
  WorkerClientOptions options;
  options.url = parse_daemon_url(argc > 1 ? argv[1] : "");
  options.name = argc > 2 ? argv[2] : "";
  options.backoff_max = 500ms;
  if (const int processes = argc > 4 ? std::atoi(argv[4]) : 0; processes > 0) options.processes = processes;
  if (argc > 5) options.wall = {std::chrono::seconds(std::atoi(argv[5])), 100ms};
  try {
    DatasetSourceOptions far;
    far.use = BlobUse::always;
    far.cache = argc > 3 ? argv[3] : "";
    far.fetcher.url = options.url;
    far.fetcher.silence = 5s;
    const auto beside = [](RetrainingSession& session) { session.on_end(retrain(session.job(), session, [] {})); };
    const auto elsewhere = [&far](RetrainingSession& session) {
      retrain_in_folder(far, session, [&session](const RetrainingJob& job, RetrainingFolder& folder) {
        return retrain(job, session, [&folder] { folder.offer(); });
      });
    };
    WorkerClient(options, no_trials, !far.cache.empty() ? RetrainFunction(elsewhere) : RetrainFunction(beside)).run();
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "counting_worker: %s\n", error.what());
    return 2;
  }
}
