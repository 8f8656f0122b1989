#include "workers/train/trainer.h"

#include <deque>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "model/device.h"
#include "workers/train/autograd_trainer.h"
#include "workers/train/plain_trainer.h"
#include "workers/train/stacked_trainer.h"

namespace fusion {
namespace {

void train_autograd(std::vector<PackTrial> trials, const TrainingOptions& options, const TrainingData& data,
                    const PackContext& context) {
  std::deque<PackTrial> waiting(std::move_iterator(trials.begin()), std::move_iterator(trials.end()));
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
  const int gpu = gpu_index(context.device);
  const std::string engine = context.engine != "auto" ? context.engine : gpu < 0 ? "plain" : "stacked";
  if (engine == "plain") {
    if (gpu >= 0) throw ModelError("engine \"plain\" trains on the device cpu, got " + context.device);
    train_plain<float>(std::move(trials), options, data, context);
  } else if (engine == "stacked") {
    const auto backend = gpu < 0 ? stacked::make_cpu_backend<float>() : stacked::make_cuda_backend<float>(gpu);
    train_stacked<float>(std::move(trials), options, data, context, *backend);
  } else if (engine == "autograd") {
    device_from_text(context.device);
    train_autograd(std::move(trials), options, data, context);
  } else {
    throw ModelError("engine: expected auto, plain, stacked or autograd, got \"" + context.engine + "\"");
  }
}

std::optional<std::int64_t> check_training_device(const std::string& device) {
  const int gpu = gpu_index(device);
  if (gpu < 0) return std::nullopt;
  return stacked::make_cuda_backend<float>(gpu)->free_bytes();
}

}  // namespace fusion
