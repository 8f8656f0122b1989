#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/progress.h"
#include "model/device.h"
#include "search/rank_correlation.h"
#include "space/feature_manifest.h"
#include "space/search_space.h"
#include "tools/bench/cpu_clock.h"
#include "tools/bench/one_thread.h"
#include "tools/run_main.h"
#include "workers/data/features.h"
#include "workers/train/trainer.h"

namespace {

using namespace fusion;  // NOLINT: a program

struct Options {
  std::string features;
  std::vector<std::string> engines{"autograd", "plain"};
  std::size_t candidates = 100, pack = 8;
  int max_steps = 4;
  std::uint64_t seed = 0;
  std::string device = "cpu";
  bool as_json = false;
};

/// What one engine says of every candidate, in their order.
struct Scores {
  std::vector<double> dev, loss;
  double cpu_s = 0;
};

/// Distinct random candidates, each length as likely.
std::vector<TrialJob> draw(const Options& options, const DatasetSpec& dataset) {
  const SearchSpace space = SearchSpace::whole(dataset, options.max_steps);
  Rng rng(options.seed, 1);
  std::set<Architecture> known;
  std::vector<TrialJob> jobs;
  while (jobs.size() < options.candidates) {
    const Architecture architecture = space.sample(rng);
    if (!known.insert(architecture).second) continue;
    TrialJob& job = jobs.emplace_back();
    job.trial = TrialId{static_cast<std::int64_t>(jobs.size())};
    job.attempt = 1;
    job.architecture = architecture;
    job.seed = trial_seed(options.seed, architecture);
  }
  return jobs;
}

Scores train(const Options& options, const std::string& engine, const std::vector<TrialJob>& jobs, const FeatureSet& features) {
  Scores scores;
  scores.dev.resize(jobs.size());
  scores.loss.resize(jobs.size());
  Progress bar("training with " + engine, static_cast<std::int64_t>(jobs.size()), "candidates");
  PackContext context;
  context.device = options.device;
  context.engine = engine;
  context.room = options.pack;
  context.order_seed = order_seed(options.seed);
  context.on_end = [&](TrialOutcome outcome) {
    if (!outcome.score) throw Error("trial " + to_string(outcome.trial) + " ended " + std::string(name_of(outcome.outcome)) + ": " + outcome.error);
    const auto at = static_cast<std::size_t>(outcome.trial.value - 1);
    scores.dev[at] = outcome.score->dev_score;
    scores.loss[at] = outcome.score->train_loss;
    bar.advance();
  };
  std::vector<PackTrial> trials;
  for (const TrialJob& job : jobs) trials.push_back({job, {}, {}});
  const double begun = bench::cpu_seconds();
  train_pack(std::move(trials), TrainingOptions{}, training_data(features), context);
  scores.cpu_s = bench::cpu_seconds() - begun;
  bar.finish();
  return scores;
}

nlohmann::json compare(const std::string& of, const Scores& a, const Scores& b) {
  double sum = 0, largest = 0;
  std::size_t equal = 0;
  for (std::size_t i = 0; i < a.dev.size(); ++i) {
    const double difference = 100 * (b.dev[i] - a.dev[i]);
    sum += difference;
    largest = std::max(largest, std::abs(difference));
    equal += a.dev[i] == b.dev[i];
  }
  const double mean = sum / static_cast<double>(a.dev.size());
  const double absolute = 100 * mean_abs_error(a.dev, b.dev).value_or(0);
  const double rank = rank_correlation(a.dev, b.dev).value_or(1);
  std::printf("%-22s %8.4f %+12.3f %12.3f %10.2f %8zu %8.1f %8.1f\n", of.c_str(), rank, mean, absolute, largest, equal, a.cpu_s, b.cpu_s);
  return {{"engines", of},      {"rank_correlation", rank}, {"mean_difference_points", mean}, {"mean_abs_difference_points", absolute},
          {"largest_points", largest}, {"equal", equal},    {"cpu_s", {a.cpu_s, b.cpu_s}}};
}

void run(const Options& options) {
  at::set_num_threads(1);
  prepare_training_thread();
  const auto features = FeatureSet::open(feature_manifest_path(options.features));
  const std::vector<TrialJob> jobs = draw(options, features->spec());
  std::vector<Scores> scores;
  for (const std::string& engine : options.engines) scores.push_back(train(options, engine, jobs, *features));
  std::printf("%zu candidates of 1 to %d steps on %s, defaults of a study (3 epochs, batch 32, R 16, dropout 0.5); dev accuracy, points\n",
              jobs.size(), options.max_steps, features->spec().name.c_str());
  std::printf("%-22s %8s %12s %12s %10s %8s %8s %8s\n", "engines", "rank", "mean", "mean |.|", "largest", "equal", "CPU s", "CPU s");
  nlohmann::json document{{"candidates", jobs.size()}, {"dataset", features->spec().name}, {"pairs", nlohmann::json::array()}};
  for (std::size_t i = 1; i < scores.size(); ++i) {
    document["pairs"].push_back(compare(options.engines[0] + " - " + options.engines[i], scores[0], scores[i]));
  }
  if (options.as_json) std::printf("%s\n", document.dump().c_str());
}

}  // namespace

int main(int argc, char** argv) {
  fusion::bench::begin_again_with_one_thread(argv);
  CLI::App app{"bench_engines: trains the same candidates with several engines and compares their dev scores with the first one's "
               "(docs/benchmarks.md)."};
  Options options;
  app.add_option("features", options.features, "A dataset.json with features, or a features.json")->required();
  app.add_option("--engines", options.engines, "The first one is compared with each of the others")->delimiter(',')->capture_default_str();
  app.add_option("--candidates", options.candidates, "How many")->check(CLI::Range(2, 100'000))->capture_default_str();
  app.add_option("--max-steps", options.max_steps, "Of a candidate")->check(CLI::Range(1, kMaxSteps))->capture_default_str();
  app.add_option("--pack", options.pack, "Candidates trained together")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--seed", options.seed, "Of candidates, weights, dropout and order")->capture_default_str();
  app.add_option("--device", options.device, "cpu or cuda:N")->capture_default_str();
  app.add_flag("--json", options.as_json, "The last line is one JSON object");
  return run_main("bench_engines", app, argc, argv, [&] {
    run(options);
    return 0;
  });
}
