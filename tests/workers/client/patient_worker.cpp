#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "workers/client/worker_client.h"

/// patient_worker URL [grace in ms]: every trial lasts until it is stopped, or two minutes.
int main(int argc, char** argv) {
  using namespace std::chrono_literals;
  fusion::configure_logs("info");
  fusion::WorkerClientOptions options;
  options.url = fusion::parse_daemon_url(argc > 1 ? argv[1] : "");
  options.grace = std::chrono::milliseconds(argc > 2 ? std::atoi(argv[2]) : 0);
  const auto train = [](fusion::PackSession& session) {
    for (auto trials = session.trials(); !trials.empty(); trials = session.more(1)) {
      const fusion::SessionTrial& trial = trials.front();
      fusion::EpochReport report;
      report.epoch = 1;
      session.on_epoch(trial.job, report);
      for (int i = 0; i < 12'000 && !trial.cancel.stop_requested(); ++i) std::this_thread::sleep_for(10ms);
      fusion::TrialOutcome outcome;
      outcome.trial = trial.job.trial;
      outcome.attempt = trial.job.attempt;
      outcome.outcome = fusion::Outcome::cancelled;
      session.on_end(std::move(outcome));
    }
  };
  try {
    fusion::WorkerClient(options, train).run();
    return 0;
  } catch (const fusion::Error& error) {
    std::fprintf(stderr, "patient_worker: %s\n", error.what());
    return 2;
  }
}
