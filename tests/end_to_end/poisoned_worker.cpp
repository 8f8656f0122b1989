#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "space/architecture.h"
#include "workers/client/worker_client.h"

// poisoned_worker --connect URL [--name NAME] [...]: a worker without LibTorch, to be started by fusiond. Trials take a moment and score by
// their taps, or fail where the study's dropout is 0.75; the architecture that the variable POISON names kills the process, as a crash in a driver would.
namespace {

using namespace fusion;

void train(PackSession& session) {
  const char* poison = std::getenv("POISON");
  std::vector<SessionTrial> trials = session.trials();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // all are in training
  while (!trials.empty()) {
    for (const SessionTrial& trial : trials) {
      if (poison != nullptr && canonical_text(trial.job.architecture) == poison) ::kill(::getpid(), SIGKILL);
    }
    for (const SessionTrial& trial : trials) {
      TrialOutcome outcome;
      outcome.trial = trial.job.trial;
      outcome.attempt = trial.job.attempt;
      if (session.header().training.dropout == 0.75) {
        outcome.outcome = Outcome::failed;
        outcome.error = "it was told to fail";
      } else {
        outcome.score.emplace();
        outcome.score->dev_score = 0.5 + 0.01 * trial.job.architecture.steps.front().taps.front();
        outcome.score->best_epoch = 1;
      }
      session.on_end(std::move(outcome));
    }
    trials = session.more(trials.size());
  }
}

}  // namespace

int main(int argc, char** argv) {
  configure_logs("info");
  WorkerClientOptions options;
  options.pack = 4;
  options.slots = 8;
  for (int i = 1; i + 1 < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--connect") options.url = parse_daemon_url(argv[i + 1]);
    if (option == "--name") options.name = argv[i + 1];
  }
  try {
    WorkerClient(options, train).run();
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "poisoned_worker: %s\n", error.what());
    return 2;
  }
}
