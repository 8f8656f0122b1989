#include "workers/train/trainer.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "base/error.h"
#include "workers/train/autograd_trainer.h"

namespace fusion {
namespace {

void train_one_by_one(std::vector<PackTrial> trials, const TrainingOptions& options, const TrainingData& data,
                      const PackContext& context) {
  std::deque<PackTrial> waiting(trials.begin(), trials.end());
  while (!waiting.empty()) {
    const PackTrial trial = std::move(waiting.front());
    waiting.pop_front();
    TrainingContext of_trial;
    of_trial.device = context.device;
    of_trial.order_seed = context.order_seed;
    of_trial.cancel = trial.cancel;
    of_trial.prune = trial.prune;
    of_trial.bank = context.bank;
    if (context.on_epoch) of_trial.on_epoch = [&](const EpochReport& report) { context.on_epoch(trial.job, report); };
    context.on_end(train_trial(trial.job, options, data, of_trial));
    if (!context.more) continue;
    for (PackTrial& next : context.more(1)) waiting.push_back(std::move(next));
  }
}

}  // namespace

void train_pack(std::vector<PackTrial> trials, const TrainingOptions& options, const TrainingData& data, const PackContext& context) {
  if (context.engine != "auto" && context.engine != "autograd") {
    throw ModelError("engine: expected auto or autograd, got \"" + context.engine + "\"");
  }
  train_one_by_one(std::move(trials), options, data, context);
}

}  // namespace fusion
