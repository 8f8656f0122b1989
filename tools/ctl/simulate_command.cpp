#include "tools/ctl/simulate_command.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <exception>
#include <memory>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "base/progress.h"
#include "search/strategy.h"
#include "space/feature_manifest.h"
#include "tools/ctl/dry_run.h"
#include "tools/ctl/figures.h"
#include "tools/ctl/study_file.h"
#include "tools/ctl/table.h"
#include "tools/ctl/text.h"
#include "workers/simulate/score_table.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

struct SimulateOptions {
  std::vector<std::string> files;
  std::string table = "formula";
  std::int64_t table_study = 0, seeds = 100, first_seed = 0, jobs = 0;
  bool no_baseline = false;
  DryRunOptions run;
};

/// Beyond this the best of a formula is not looked for.
constexpr std::uint64_t kMostEnumerated = 2'000'000;

/// A study document that was found good, and its searches.
struct Simulated {
  std::string label;
  StudyRecord study;
  SearchSpace space;
  std::vector<DryRun> runs;
  double seconds = 0;  // of this machine, all runs together
};

struct Spread {
  double mean = 0, sd = 0, least = 0, median = 0, most = 0;
};

Spread spread_of(std::vector<double> values) {
  Spread spread;
  if (values.empty()) return spread;
  std::sort(values.begin(), values.end());
  const auto count = static_cast<double>(values.size());
  spread.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
  spread.sd = values.size() > 1 ? std::sqrt(squares / (count - 1)) : 0;
  spread.least = values.front();
  spread.median = (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
  spread.most = values.back();
  return spread;
}

json to_json(const Spread& spread) {
  return {{"mean", spread.mean}, {"sd", spread.sd}, {"min", spread.least}, {"median", spread.median}, {"max", spread.most}};
}

/// Of the features that the scores are of: a table brings them along; a formula takes those that the study names.
DatasetSpec dataset_for(const StudySpec& spec, const SimulatedObjective& objective) {
  if (const auto* table = dynamic_cast<const ScoreTable*>(&objective)) return table->dataset();
  return read_feature_manifest(feature_manifest_path(spec.dataset));
}

Simulated read_study(const json& document, const std::string& file, const SimulatedObjective& objective) {
  JsonProblems problems;
  JsonReader reader(document, file, problems);
  StudyRecord study;
  study.spec = StudySpec::read(reader);
  problems.throw_if_any();
  study.dataset = dataset_for(study.spec, objective);
  JsonReader space_reader(study.spec.space, file, problems, "/space");
  SearchSpace space = SearchSpace::read(space_reader, study.dataset);
  problems.throw_if_any();
  JsonReader strategy_reader(study.spec.strategy, file, problems, "/strategy");
  make_strategy(strategy_reader, space, study.spec.seed);
  problems.throw_if_any();
  study.spec.space = space.to_json();
  const std::string strategy = study.spec.strategy.value("name", "");
  return {study.spec.name == strategy ? strategy : study.spec.name + " (" + strategy + ")", study, std::move(space), {}, 0};
}

/// Random search on the same space with as many trials: what a strategy must beat.
Simulated baseline_of(const Simulated& other) {
  Simulated baseline{other.study.spec.name + " (random, for comparison)", other.study, other.space, {}, 0};
  std::int64_t trials = 1;
  for (const DryRun& run : other.runs) trials = std::max(trials, run.trials);
  baseline.study.spec.strategy = {{"name", "random"}, {"trials", trials}};
  return baseline;
}

std::optional<double> best_truth(const SearchSpace& space, const SimulatedObjective& objective) {
  std::optional<double> best;
  const auto look_at = [&](const Architecture& architecture) { best = std::max(best.value_or(0), objective.truth(architecture).value_or(0)); };
  if (const auto* table = dynamic_cast<const ScoreTable*>(&objective)) {
    for (const auto& [text, entry] : table->entries()) {
      if (const Architecture architecture = architecture_from_text(text); space.contains(architecture)) look_at(architecture);
    }
    return best;
  }
  const std::uint64_t count = space.count_saturated();
  if (count > kMostEnumerated) return std::nullopt;
  for (std::uint64_t i = 0; i < count; ++i) look_at(space.at(i));
  return best;
}

/// One run for each seed, on as many threads as there are jobs. Runs share nothing but the objective, which does not change.
void run_all(Simulated& simulated, const SimulatedObjective& objective, const SimulateOptions& options) {
  const auto begun = std::chrono::steady_clock::now();
  simulated.runs.resize(static_cast<std::size_t>(options.seeds));
  std::atomic<std::int64_t> next{0}, done{0};
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(options.jobs));
  const auto work = [&](std::size_t job) {
    try {
      for (std::int64_t i = next++; i < options.seeds; i = next++) {
        StudyRecord study = simulated.study;
        study.spec.seed = static_cast<std::uint64_t>(options.first_seed + i);
        DryRunOptions run = options.run;
        run.simulation.seed += static_cast<std::uint64_t>(i);
        simulated.runs[static_cast<std::size_t>(i)] = dry_run(study, objective, run);
        ++done;
      }
    } catch (...) {
      failures[job] = std::current_exception();
      next = options.seeds;
      ++done;
    }
  };
  Progress progress("simulate " + simulated.label, options.seeds, "seeds", isatty(STDERR_FILENO) == 0);
  {
    std::vector<std::jthread> threads;
    for (std::size_t job = 0; job < failures.size(); ++job) threads.emplace_back(work, job);
    while (next < options.seeds) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      progress.set(std::min<std::int64_t>(done, options.seeds));
    }
  }
  progress.finish();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  simulated.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

template <typename Figure>
std::vector<double> of_runs(const Simulated& simulated, Figure figure) {
  std::vector<double> values;
  for (const DryRun& run : simulated.runs) {
    if (run.best) values.push_back(figure(run));
  }
  return values;
}

/// Mean and spread of the truth of the best so far, after 1, 2, 5, 10, 20, 50, ... trials, while every run still has some.
json course(const Simulated& simulated, std::optional<double> optimum) {
  std::size_t least = SIZE_MAX;
  for (const DryRun& run : simulated.runs) least = std::min(least, run.best_truth_after.size());
  json points = json::array();
  for (std::size_t decade = 1; decade <= least; decade *= 10) {
    for (const std::size_t trials : {decade, 2 * decade, 5 * decade}) {
      if (trials > least) break;
      std::vector<double> values;
      for (const DryRun& run : simulated.runs) values.push_back(run.best_truth_after[trials - 1]);
      const Spread spread = spread_of(values);
      points.push_back({{"trials", trials}, {"best_mean", spread.mean}, {"best_sd", spread.sd},
                        {"regret_mean", optimum ? json(*optimum - spread.mean) : json()}});
    }
  }
  return points;
}

struct Figures {
  Spread best, regret, trials, seconds;
  double optimum_share = 0, near_share = 0;  // of the runs: found the best there is, came within 0.01 of it
  std::int64_t attempts = 0, unknown = 0;
};

double per_second(std::int64_t count, double seconds) { return static_cast<double>(count) / std::max(seconds, 1e-9); }

Figures figures_of(const Simulated& simulated, std::optional<double> optimum) {
  Figures figures;
  const auto truth = [](const DryRun& run) { return run.best_truth; };
  figures.best = spread_of(of_runs(simulated, truth));
  for (const DryRun& run : simulated.runs) figures.attempts += run.attempts, figures.unknown += run.unknown;
  figures.trials = spread_of(of_runs(simulated, [](const DryRun& run) { return static_cast<double>(run.trials); }));
  figures.seconds = spread_of(of_runs(simulated, [](const DryRun& run) { return run.seconds; }));
  if (!optimum) return figures;
  figures.regret = spread_of(of_runs(simulated, [&](const DryRun& run) { return *optimum - run.best_truth; }));
  for (const DryRun& run : simulated.runs) {
    const double share = 1.0 / static_cast<double>(simulated.runs.size());
    if (run.best && run.best_truth >= *optimum) figures.optimum_share += share;
    if (run.best && run.best_truth >= *optimum - 0.01) figures.near_share += share;
  }
  return figures;
}

json runs_json(const Simulated& simulated, std::optional<double> optimum) {
  json runs = json::array();
  for (const DryRun& run : simulated.runs) {
    json row{{"seed", run.seed}, {"trials", run.trials}, {"completed", run.completed}, {"pruned", run.pruned}, {"failed", run.failed},
             {"unknown", run.unknown}, {"attempts", run.attempts}, {"seconds", run.seconds}, {"best", nullptr}, {"best_score", nullptr},
             {"best_truth", nullptr}, {"best_test", nullptr}, {"regret", nullptr}};
    if (run.best) {
      row["best"] = to_triplets(*run.best);
      row["best_score"] = run.best_score;
      row["best_truth"] = run.best_truth;
      if (run.best_test) row["best_test"] = *run.best_test;
      if (optimum) row["regret"] = *optimum - run.best_truth;
    }
    runs.push_back(std::move(row));
  }
  return runs;
}

json to_json(const Simulated& simulated, std::optional<double> optimum) {
  const Figures figures = figures_of(simulated, optimum);
  const auto if_known = [&](json value) { return optimum ? value : json(); };
  return {{"study", simulated.study.spec.name}, {"strategy", simulated.study.spec.strategy}, {"label", simulated.label},
          {"space", simulated.space.count()}, {"optimum", optimum ? json(*optimum) : json()}, {"trials", to_json(figures.trials)},
          {"best_truth", to_json(figures.best)}, {"regret", if_known(to_json(figures.regret))},
          {"optimum_share", if_known(figures.optimum_share)}, {"within_0_01_share", if_known(figures.near_share)},
          {"simulated_s", to_json(figures.seconds)}, {"trials_per_s", per_second(figures.attempts, simulated.seconds)}, {"course", course(simulated, optimum)},
          {"runs", runs_json(simulated, optimum)}};
}

std::string with_spread(const Spread& spread) { return score_text(spread.mean) + " +- " + score_text(spread.sd); }
std::string percent(double share) { return std::to_string(static_cast<int>(std::lround(100 * share))) + " %"; }

void print_table(const Context& context, const std::vector<Simulated>& all, const std::vector<std::optional<double>>& optima, bool durations) {
  std::vector<Column> columns{{"study", Align::left, true}, {"trials", Align::right}, {"best found", Align::right}, {"worst to best seed", Align::right},
                              {"regret", Align::right}, {"found it", Align::right}, {"within 0.01", Align::right}};
  if (durations) columns.push_back({"simulated time", Align::right});
  Table table(columns);
  std::int64_t unknown = 0, attempts = 0;
  double seconds = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Figures figures = figures_of(all[i], optima[i]);
    const bool known = optima[i].has_value();
    std::vector<Cell> row{all[i].label, grouped(std::to_string(std::llround(figures.trials.mean))), with_spread(figures.best),
                          score_text(figures.best.least) + " to " + score_text(figures.best.most),
                          known ? with_spread(figures.regret) : kAbsent, known ? percent(figures.optimum_share) : kAbsent,
                          known ? percent(figures.near_share) : kAbsent};
    if (durations) row.emplace_back(duration(figures.seconds.mean));
    table.add(std::move(row));
    unknown += figures.unknown;
    attempts += figures.attempts;
    seconds += all[i].seconds;
  }
  print(table.text(context.terminal()));
  print_line("\nFigures are means over the seeds and their standard deviation. " + grouped(std::to_string(std::llround(per_second(attempts, seconds)))) + " trials a second.");
  if (unknown > 0) print_line(plural(unknown, "trial") + " failed because the table does not have the architecture; make it of an exhaustive study over the same space.");
}

int simulate(const Context& context, const SimulateOptions& given) {
  SimulateOptions options = given;
  options.run.simulation.check("--");
  if (options.jobs == 0) options.jobs = std::max(1u, std::thread::hardware_concurrency());
  const auto table_study = options.table_study > 0 ? std::optional(StudyId{options.table_study}) : std::nullopt;
  const auto objective = make_objective(options.table, table_study, "--table-study");
  std::vector<Simulated> all;
  for (const std::string& file : options.files) all.push_back(read_study(read_study_file(file, {}), file, *objective));
  std::vector<Simulated> shown;
  std::vector<std::optional<double>> optima;
  for (Simulated& study : all) {
    const std::optional<double> optimum = best_truth(study.space, *objective);
    run_all(study, *objective, options);
    const bool compare = !options.no_baseline && study.study.spec.strategy.value("name", "") == "mfas";
    std::optional<Simulated> baseline;
    if (compare) run_all(baseline.emplace(baseline_of(study)), *objective, options);
    shown.push_back(std::move(study));
    optima.push_back(optimum);
    if (baseline) shown.push_back(std::move(*baseline)), optima.push_back(optimum);
  }
  if (!context.json) {
    print_table(context, shown, optima, options.run.simulation.epoch_s > 0);
    return 0;
  }
  json studies = json::array();
  for (std::size_t i = 0; i < shown.size(); ++i) studies.push_back(to_json(shown[i], optima[i]));
  print_line(json{{"objective", objective->name()}, {"seeds", options.seeds}, {"first_seed", options.first_seed}, {"studies", studies}}
                 .dump(-1, ' ', false, json::error_handler_t::replace));
  return 0;
}

}  // namespace

void add_simulate_command(CLI::App& app, Context& context) {
  auto options = std::make_shared<SimulateOptions>();
  CLI::App* command = add_command(app, context, "simulate", "Run studies against known scores, in no time and with many seeds; asks no daemon", options, simulate);
  command->add_option("STUDY", options->files, "study documents, as for submit; each is compared with the others")->required();
  command->add_option("--table", options->table, "a database with the scores of an exhaustive study, or formula[:N]")->capture_default_str();
  command->add_option("--table-study", options->table_study, "which study of the database, where several have scores")->check(CLI::PositiveNumber);
  command->add_option("--seeds", options->seeds, "searches of each study, with seeds of their own")->check(CLI::Range(1, 1'000'000))->capture_default_str();
  command->add_option("--first-seed", options->first_seed, "the first of these seeds")->check(CLI::NonNegativeNumber)->capture_default_str();
  command->add_option("--workers", options->run.workers, "trials in training at once")->check(CLI::Range(1, 100'000))->capture_default_str();
  command->add_option("--jobs", options->jobs, "threads of this machine [its cores]")->check(CLI::Range(1, 1'024));
  command->add_flag("--no-baseline", options->no_baseline, "do not add random search with as many trials beside each mfas study");
  SimulationOptions& simulation = options->run.simulation;
  command->add_option("--epoch-s", simulation.epoch_s, "seconds of the simulated clock that an epoch takes")->capture_default_str();
  command->add_option("--spread", simulation.spread, "an epoch takes up to this share more or less")->capture_default_str();
  command->add_option("--failures", simulation.failures, "share of attempts that fail")->capture_default_str();
  command->add_option("--oom", simulation.oom, "share of attempts that end out of memory")->capture_default_str();
  command->add_option("--preemptions", simulation.preemptions, "share of attempts that are preempted")->capture_default_str();
  command->add_option("--crashes", simulation.crashes, "share of attempts that are lost")->capture_default_str();
}

}  // namespace fusion::ctl
