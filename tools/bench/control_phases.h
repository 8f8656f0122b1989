#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace fusion::bench {

struct ControlOptions {
  std::string fusiond;             ///< the program
  std::filesystem::path folder;    ///< a folder for each phase is made below it
  int workers = 64;
  int pack = 1, slots = 2;
  std::int64_t trials = 100'000;   ///< of phases trials and api
  std::int64_t small = 1'000;      ///< a study that young is what one of `trials` is compared with
  int rounds = 45;                 ///< of that comparison
  int epochs = 3;                  ///< reports per trial there
  std::int64_t reports = 100'000;  ///< of phase reports
  double load_per_s = 1'000;       ///< trials a second that are offered where latencies are measured
  double latency_s = 8;            ///< how long
  int idle = 512;                  ///< connections of phase idle that do nothing
  std::int64_t rows = 1'000'000;   ///< trials of the databases of phase start
  int scans = 8;                   ///< readers of phase readers
  int turns = 15;                  ///< how often they come and go; a quarter of latency_s each
  std::string python = "/usr/bin/python3";
  std::string optuna_script;
  std::int64_t optuna_trials = 200;
};

// Each phase starts a daemon of its own in a folder of its own, and ends it with SIGKILL. Figures come back as JSON, in the units of
// their names. A phase that finds something acknowledged and not in the database throws Error.

/// As many workers as there are, as fast as they can: propose, lease, `epochs` reports, result. Then `flatness`: the rate of a study of
/// `trials` over that of one of `small`, two daemons that take turns.
nlohmann::json phase_trials(const ControlOptions& options);
/// The same with 100 reports per trial.
nlohmann::json phase_reports(const ControlOptions& options);
/// Latencies at a load that leaves room: trials take as long as gives `load_per_s` in all.
nlohmann::json phase_dispatch(const ControlOptions& options);
/// The same while `idle` further workers are connected.
nlohmann::json phase_idle(const ControlOptions& options);
/// The same in turns without, and while `scans` clients scan all trials over HTTP without a pause. `ratio` is of the p99 of acknowledgements, the
/// median of the turns; `ratio_of_all` takes all turns as one, and so whatever befell the machine meanwhile.
nlohmann::json phase_readers(const ControlOptions& options);
/// Answers of the API while trials are written, on a study of phase trials' size.
nlohmann::json phase_api(const ControlOptions& options);
/// Starts on a database of `rows` trials: while its study runs, and when it was cancelled.
nlohmann::json phase_start(const ControlOptions& options);
/// Optuna's own loop: ask, three intermediate values, tell, one process. Null where that Python has no Optuna.
nlohmann::json phase_optuna(const ControlOptions& options);

}  // namespace fusion::bench
