// How fast the daemon is without anybody training: trials, reports, latencies, start, queries; docs/benchmarks.md, "bench_control_plane".
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>

#include "base/log.h"
#include "tools/bench/control_daemon.h"
#include "tools/bench/control_phases.h"
#include "tools/run_main.h"

namespace fusion::bench {
namespace {

using nlohmann::json;

struct Phase {
  std::string name;
  std::function<json(const ControlOptions&)> run;
};
const std::vector<Phase> kPhases{{"trials", phase_trials},   {"reports", phase_reports}, {"dispatch", phase_dispatch}, {"idle", phase_idle},
                                 {"readers", phase_readers}, {"api", phase_api},         {"start", phase_start},       {"optuna", phase_optuna}};

/// A row per figure, groups by a heading.
void print(const json& figures, const std::string& indent = "  ") {
  for (const auto& [key, value] : figures.items()) {
    if (value.is_object()) {
      std::printf("%s%s\n", indent.c_str(), key.c_str());
      print(value, indent + "  ");
    } else {
      std::printf("%s%-*s %s\n", indent.c_str(), static_cast<int>(28 - indent.size()), key.c_str(), value.dump().c_str());
    }
  }
}

json value_at(const json& phases, const std::string& pointer) {
  const json::json_pointer at(pointer);
  return phases.contains(at) ? phases.at(at) : json(nullptr);
}

json ratio(const json& above, const json& below) {
  if (!above.is_number() || !below.is_number() || below.get<double>() <= 0) return nullptr;
  return above.get<double>() / below.get<double>();
}

/// The figures that goals are set for, null where their phase was not run.
json headline(const json& phases) {
  return {{"trials_per_s", value_at(phases, "/trials/trials_per_s")},
          {"flatness", value_at(phases, "/trials/flatness")},
          {"daemon_us_per_trial", value_at(phases, "/trials/daemon_us_per_trial")},
          {"dispatch_p99_ms", value_at(phases, "/dispatch/dispatch_p99_ms")},
          {"idle_p99_ms", value_at(phases, "/idle/dispatch_p99_ms")},
          {"reports_per_s", value_at(phases, "/reports/reports_per_s")},
          {"reader_ratio", value_at(phases, "/readers/ratio")},
          {"query_ms", value_at(phases, "/api/worst_median_ms")},
          {"start_ms", value_at(phases, "/start/running/ready_ms")},
          {"start_ended_ms", value_at(phases, "/start/ended/ready_ms")},
          {"idle_resident_mb", value_at(phases, "/start/ended/resident_mb")},
          {"vs_optuna", ratio(value_at(phases, "/trials/trials_per_s"), value_at(phases, "/optuna/sqlite/trials_per_s"))},
          {"vs_optuna_journal", ratio(value_at(phases, "/trials/trials_per_s"), value_at(phases, "/optuna/journal/trials_per_s"))}};
}

std::string names_of_phases() {
  std::string names;
  for (const Phase& phase : kPhases) names += (names.empty() ? "" : ",") + phase.name;
  return names;
}

void add_options(CLI::App& app, ControlOptions& options) {
  app.add_option("--fusiond", options.fusiond, "the daemon (default: beside this program)");
  app.add_option("--folder", options.folder, "where databases are made: on a real disk (default: the system's folder for temporary files)");
  app.add_option("--workers", options.workers, "simulated workers")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--pack", options.pack, "trials each trains at once")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--slots", options.slots, "trials each holds in phases trials and reports")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--trials", options.trials, "of phases trials and api")->capture_default_str()->check(CLI::Range(1, 1'000'000));
  app.add_option("--small", options.small, "trials of the young studies in phase trials")->capture_default_str()->check(CLI::Range(1, 100'000));
  app.add_option("--rounds", options.rounds, "how often old and young are compared")->capture_default_str()->check(CLI::Range(1, 1'000));
  app.add_option("--reports", options.reports, "of phase reports, 100 a trial")->capture_default_str()->check(CLI::Range(100, 100'000'000));
  app.add_option("--load", options.load_per_s, "trials a second where latencies are measured")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--latency-s", options.latency_s, "how long each of these takes")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--idle", options.idle, "idle connections of phase idle")->capture_default_str()->check(CLI::Range(0, 10'000));
  app.add_option("--rows", options.rows, "trials in the databases of phase start")->capture_default_str()->check(CLI::Range(100, 5'000'000));
  app.add_option("--scans", options.scans, "clients that scan in phase readers")->capture_default_str()->check(CLI::Range(1, 100));
  app.add_option("--turns", options.turns, "how often these come and go")->capture_default_str()->check(CLI::Range(1, 1'000));
  app.add_option("--python", options.python, "a Python with Optuna")->capture_default_str();
  app.add_option("--optuna-trials", options.optuna_trials, "per storage")->capture_default_str()->check(CLI::Range(1, 100'000));
}

/// Sizes that show whether everything works, and no speed.
void make_quick(ControlOptions& options) {
  options.workers = 8;
  options.trials = 300;
  options.small = 50;
  options.rounds = 1;
  options.reports = 1'000;
  options.load_per_s = 200;
  options.latency_s = 0.3;
  options.idle = 16;
  options.rows = 500;
  options.scans = 2;
  options.turns = 2;
  options.optuna_trials = 5;
}

int run(ControlOptions options, const std::vector<std::string>& wanted, bool as_json) {
  for (const std::string& name : wanted) {
    if (std::ranges::none_of(kPhases, [&](const Phase& phase) { return phase.name == name; })) {
      throw ConfigError("--phases: expected some of " + names_of_phases() + ", got \"" + name + "\"");
    }
  }
  const BenchFolder folder(options.folder);
  options.folder = folder.path();
  const Disk disk = measure_disk(options.folder);
  std::printf("disk: %s, %.0f synced appends of 4 KiB a second\n", disk.file_system.c_str(), disk.syncs_per_s);
  json phases = json::object();
  for (const Phase& phase : kPhases) {
    if (std::ranges::find(wanted, phase.name) == wanted.end()) continue;
    phases[phase.name] = phase.run(options);
    std::printf("%s\n", phase.name.c_str());
    print(phases[phase.name]);
    std::fflush(stdout);
  }
  json result = headline(phases);
  std::printf("figures\n");
  print(result);
  result["file_system"] = disk.file_system;
  result["syncs_per_s"] = disk.syncs_per_s;
  result["workers"] = options.workers;
  result["phases"] = phases;
  if (as_json) std::printf("%s\n", result.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace fusion::bench

int main(int argc, char** argv) {
  using namespace fusion::bench;
  CLI::App app{"Speed of the control plane: a real fusiond, simulated workers on loopback, every acknowledgement looked up in the database "
               "afterwards (exit status 2 if one is missing). docs/benchmarks.md says what the figures mean."};
  ControlOptions options;
  options.folder = std::filesystem::temp_directory_path();
  options.fusiond = (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "fusiond").string();
  options.optuna_script = std::string(FUSION_BENCH_FOLDER) + "/optuna_loop.py";
  bool as_json = false, quick = false;
  std::vector<std::string> wanted;
  if (std::any_of(argv, argv + argc, [](const char* argument) { return std::string(argument) == "--quick"; })) make_quick(options);
  for (const Phase& phase : kPhases) wanted.push_back(phase.name);
  add_options(app, options);
  app.add_option("--phases", wanted, "which, separated by commas")->delimiter(',')->default_str(names_of_phases());
  app.add_flag("--quick", quick, "small sizes: whether it works, not how fast (an option of its own for a size still counts)");
  app.add_flag("--json", as_json, "one JSON object as the last line");
  return fusion::run_main("bench_control_plane", app, argc, argv, [&] { return run(options, wanted, as_json); });
}
