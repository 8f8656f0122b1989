#include "workers/simulate/simulation_options.h"

#include <cstdio>
#include <string_view>

#include "base/error.h"
#include "base/random.h"

namespace fusion {

namespace {

/// An attempt that is preempted costs no retry: a trial that always is would never end.
constexpr double kMostGoesWrong = 0.95;

std::string text_of(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

Outcome outcome_of(const SimulationOptions& options, double draw) {
  if (draw < options.failures) return Outcome::failed;
  if (draw < options.failures + options.oom) return Outcome::oom;
  if (draw < options.failures + options.oom + options.preemptions) return Outcome::preempted;
  if (draw < options.failures + options.oom + options.preemptions + options.crashes) return Outcome::lost;
  return Outcome::completed;
}

}  // namespace

void SimulationOptions::check(const std::string& prefix) const {
  std::vector<std::string> problems;
  const auto in_range = [&](const char* option, double value, double most) {
    if (value >= 0 && value <= most) return;
    problems.push_back(prefix + option + ": expected a number in [0, " + text_of(most) + "], got " + text_of(value));
  };
  in_range("epoch-s", epoch_s, 86'400);
  in_range("spread", spread, 1);
  in_range("failures", failures, 1);
  in_range("oom", oom, 1);
  in_range("preemptions", preemptions, 1);
  in_range("crashes", crashes, 1);
  const double wrong = failures + oom + preemptions + crashes;
  if (problems.empty() && wrong > kMostGoesWrong) {
    problems.push_back(prefix + "failures, " + prefix + "oom, " + prefix + "preemptions and " + prefix + "crashes: expected at most " + text_of(kMostGoesWrong) +
                       " together, so that trials end, got " + text_of(wrong));
  }
  if (!problems.empty()) throw ConfigError(problems);
}

SimulatedFate fate_of(const SimulationOptions& options, const TrialJob& job, int epochs) {
  SimulatedFate fate;
  const std::uint64_t seed = mix(options.seed, job.seed);
  Rng durations(seed, 0);
  for (int i = 0; i < epochs; ++i) fate.epoch_s.push_back(options.epoch_s * durations.uniform(1 - options.spread, 1 + options.spread));
  Rng luck(seed, static_cast<std::uint64_t>(job.attempt));
  fate.outcome = outcome_of(options, luck.uniform());
  fate.epochs = epochs;
  if (fate.outcome == Outcome::completed) return fate;
  const double moment = luck.uniform() * epochs;
  fate.epochs = static_cast<int>(moment);
  fate.rest_s = (moment - fate.epochs) * fate.epoch_s[static_cast<std::size_t>(fate.epochs)];
  return fate;
}

}  // namespace fusion
