#include "tools/bench/engine_run.h"

#include <algorithm>

#include "base/error.h"
#include "workers/train/trainer.h"

namespace fusion::bench {

std::vector<double> EngineRun::epoch(std::span<const Architecture> architectures, const TrainingOptions& options,
                                     std::int64_t classes, const FeatureSplit& train, const FeatureSplit& dev) const {
  std::vector<double> losses(architectures.size());
  PackContext context;
  context.engine = engine;
  context.device = device;
  context.order_seed = order_seed;
  std::string problem;
  context.on_end = [&](const TrialOutcome& ended) {
    if (ended.outcome == Outcome::completed) {
      losses[static_cast<std::size_t>(ended.trial.value - 1)] = ended.score->train_loss;
    } else {
      problem = "the engine " + engine + " did not complete a trial: " + ended.error;
    }
  };
  for (std::size_t begin = 0; begin < architectures.size(); begin += pack) {
    std::vector<PackTrial> trials;
    for (std::size_t i = begin; i < std::min(begin + pack, architectures.size()); ++i) {
      PackTrial& trial = trials.emplace_back();
      trial.job = TrialJob{TrialId{static_cast<std::int64_t>(i + 1)}, 1, architectures[i], seed_of(i)};
    }
    train_pack(std::move(trials), options, TrainingData{classes, train, dev}, context);
  }
  if (!problem.empty()) throw Error(problem);
  return losses;
}

}  // namespace fusion::bench
