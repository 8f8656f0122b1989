#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/random.h"
#include "surrogate/lstm_surrogate.h"
#include "surrogate/observation_set.h"
#include "tools/bench/avmnist_space.h"
#include "tools/bench/cpu_clock.h"
#include "tools/bench/lstm_twin.h"
#include "tools/bench/one_thread.h"
#include "tools/bench/rounds.h"
#include "tools/bench/search_replay.h"
#include "tools/run_main.h"

namespace {

using namespace fusion;         // NOLINT: a program
using namespace fusion::bench;  // NOLINT

constexpr std::size_t kObservations = 200;

std::vector<Observation> some_observations(const SearchSpace& space) {
  Rng rng(3);
  ObservationSet set;
  while (set.size() < kObservations) {
    const Architecture architecture = space.sample(rng);
    if (!set.contains(architecture)) set.add(architecture, rng.uniform(0.3, 0.95));
  }
  return {set.all().begin(), set.all().end()};
}

std::unique_ptr<LstmTwin> twin_of(const SearchSpace& space, const std::vector<Observation>& observations) {
  auto twin = std::make_unique<LstmTwin>(LstmSurrogate(space, {}).network());
  const Encoding encoding(space);
  for (const ObservationSet::Bucket& bucket : ObservationSet(observations).buckets()) {
    std::vector<float> values, targets;
    for (const Observation& observation : bucket.observations) {
      const std::vector<float> sequence = encoding.sequence(observation.architecture);
      values.insert(values.end(), sequence.begin(), sequence.end());
      targets.push_back(static_cast<float>(observation.score));
    }
    twin->add_bucket(values, static_cast<std::size_t>(bucket.length), targets);
  }
  return twin;
}

struct Fits {
  Rounds ours, libtorch;  ///< CPU seconds of one fit
  double loss_difference = 0;
};

Fits compare_fits(int rounds) {
  const SearchSpace space = avmnist_space();
  const std::vector<Observation> observations = some_observations(space);
  Fits fits;
  for (int round = -1; round < rounds; ++round) {  // the first warms up
    LstmSurrogate surrogate(space, {});
    const std::unique_ptr<LstmTwin> twin = twin_of(space, observations);
    std::vector<double> ours, theirs;
    const auto fit_ours = [&] {
      const double begin = cpu_seconds();
      ours = surrogate.fit(observations).loss_by_length;
      if (round >= 0) fits.ours.add(cpu_seconds() - begin);
    };
    const auto fit_theirs = [&] {
      const double begin = cpu_seconds();
      theirs = twin->fit(LstmSurrogateOptions{}.epochs);
      if (round >= 0) fits.libtorch.add(cpu_seconds() - begin);
    };
    round % 2 == 0 ? fit_ours() : fit_theirs();
    round % 2 == 0 ? fit_theirs() : fit_ours();
    for (std::size_t i = 0; i < ours.size(); ++i) {
      fits.loss_difference = std::max(fits.loss_difference, std::abs(ours[i] - theirs[i]));
    }
  }
  return fits;
}

}  // namespace

int main(int argc, char** argv) {
  begin_again_with_one_thread(argv);
  CLI::App app{"bench_surrogate: what a fit of the LSTM surrogate costs, against LibTorch, and what all fits of a search cost "
               "(docs/benchmarks.md). Exit status 1: the losses are not the same."};
  int rounds = 10;
  bool as_json = false;
  app.add_option("--rounds", rounds)->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_flag("--json", as_json, "The last line is one JSON object");
  return run_main("bench_surrogate", app, argc, argv, [&] {
    at::set_num_threads(1);
    const Fits fits = compare_fits(rounds);
    if (!(fits.loss_difference < 1e-4)) {
      std::fprintf(stderr, "bench_surrogate: losses after a fit differ by %.1e; expected less than 1e-4\n", fits.loss_difference);
      return 1;
    }
    const Rounds ratio = quotients(fits.ours, fits.libtorch);
    std::printf("One fit: %zu architectures of 1 to 4 steps, 50 epochs, one thread, CPU time, medians of %d interleaved rounds.\n"
                "  kernels %s: %.1f ms, LibTorch: %.1f ms, ours / LibTorch %.2f (%.2f-%.2f); losses differ by %.1e\n",
                kObservations, rounds, lstm_kernels().name, 1e3 * fits.ours.median(), 1e3 * fits.libtorch.median(), ratio.median(),
                ratio.lowest(), ratio.highest(), fits.loss_difference);
    Rounds fit_s, predict_s, all_s;
    SearchReplay replay;
    for (int i = 0; i < std::min(rounds, 5); ++i) {
      replay = replay_default_search();
      fit_s.add(replay.fit_cpu_s);
      predict_s.add(replay.predict_cpu_s);
      all_s.add(replay.all_cpu_s);
    }
    std::printf("Default search: %lld trials, %d fits %.2f s, %d predictions of all expansions %.3f s, strategy and surrogate together %.2f s\n",
                static_cast<long long>(replay.trials), replay.fits, fit_s.median(), replay.predictions, predict_s.median(), all_s.median());
    if (as_json) {
      const nlohmann::json document{{"fit_vs_libtorch", ratio.median()}, {"fit_ms", 1e3 * fits.ours.median()},
                                    {"search_fits", replay.fits},        {"search_fit_s", fit_s.median()},
                                    {"search_predict_s", predict_s.median()}, {"search_s", all_s.median()}};
      std::printf("%s\n", document.dump().c_str());
    }
    return 0;
  });
}
