#include "workers/train/trial_progress.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/version.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

void tell(const TrialJob& job, Outcome how, std::string error, std::optional<Score> score, const std::string& engine,
          const std::string& device, const PackContext& context) {
  TrialOutcome outcome;
  outcome.trial = job.trial;
  outcome.attempt = job.attempt;
  outcome.outcome = how;
  outcome.score = std::move(score);
  outcome.error = std::move(error);
  outcome.engine = engine;
  outcome.device = device;
  outcome.code_version = kCodeVersion;
  outcome.torch_version = compat::kTorchVersion;
  context.on_end(std::move(outcome));
}

}  // namespace

PackRules::PackRules(const TrainingOptions& options, const TrainingData& data, const PackContext& context, std::string engine,
                     std::string device)
    : options_(options),
      data_(data),
      context_(context),
      engine_(std::move(engine)),
      device_(std::move(device)),
      rows_(rows_per_epoch(options, data.train)),
      batch_(std::min<std::int64_t>(options.batch, rows_)),
      constant_loss_(options.multitask ? stored_logits_loss(data.train) : 0) {}

std::size_t PackRules::room(std::size_t trials) const {
  return options_.weight_sharing ? 1 : std::max<std::size_t>(context_.room > 0 ? context_.room : trials, 1);
}

WeightBank* PackRules::bank() const { return options_.weight_sharing ? context_.bank : nullptr; }

std::string PackRules::place(const TrialProgress& progress) const {
  const std::int64_t per_epoch = steps_per_epoch();
  return "in epoch " + std::to_string(progress.steps / per_epoch + 1) + ", step " + std::to_string(progress.steps % per_epoch + 1);
}

void PackRules::note_loss(TrialProgress& progress, double loss) const {
  if (!std::isfinite(loss)) {
    return end(progress, Outcome::failed,
               "the training loss became " + std::to_string(loss) + " " + place(progress) + "; expected a finite number");
  }
  ++progress.steps;
  progress.loss_sum += loss;
}

bool PackRules::finish_epoch(TrialProgress& progress, double learning_rate) const {
  Score& score = progress.score;
  score.train_loss = progress.loss_sum / static_cast<double>(rows_) + constant_loss_;
  if (!std::isfinite(score.train_loss)) {
    end(progress, Outcome::failed, "the loss of the backbones' stored logits is not a finite number");
    return false;
  }
  const ConfusionMatrix dev = confusion(data_.dev, progress);
  const double dev_score = dev.score(options_.metric);
  ++progress.epochs;
  const bool best = dev_score > score.dev_score;
  if (best) {
    score.dev_score = dev_score;
    score.best_epoch = progress.epochs;
    score.dev_accuracy = dev.accuracy();
    score.dev_weighted_f1 = dev.weighted_f1();
    score.dev_macro_f1 = dev.macro_f1();
  }
  progress.total_s += progress.epoch_s;
  if (context_.on_epoch) {
    context_.on_epoch(progress.trial.job, EpochReport{progress.epochs, score.train_loss, dev_score, learning_rate, progress.epoch_s});
  }
  return best;
}

void PackRules::note_test(TrialProgress& progress) const {
  progress.score.test_score = confusion(*data_.test, progress).score(options_.metric);
}

void PackRules::complete(TrialProgress& progress, Outcome outcome, std::string error) const {
  progress.score.train_s = progress.total_s + progress.epoch_s;
  end(progress, outcome, std::move(error), progress.score);
}

void PackRules::end(TrialProgress& progress, Outcome outcome, std::string error, std::optional<Score> score) const {
  progress.ended = true;
  tell(progress.trial.job, outcome, std::move(error), std::move(score), engine_, device_, context_);
}

void PackRules::guarded(TrialProgress& progress, const std::function<void()>& work) const {
  try {
    work();
  } catch (const Error& error) {
    end(progress, Outcome::failed, error.what());
  } catch (const c10::Error& error) {
    const bool memory = compat::is_out_of_memory(error);
    end(progress, memory ? Outcome::oom : Outcome::failed,
        (memory ? "memory ran out on " : "training failed on ") + device_ + ": " + compat::message_of(error));
  } catch (const std::bad_alloc& error) {
    end(progress, Outcome::oom, "memory ran out on " + device_ + (device_ == "cpu" ? " (the host's)" : ": " + std::string(error.what())));
  }
}

ConfusionMatrix PackRules::confusion(const FeatureSplit& split, const TrialProgress& progress) const {
  ConfusionMatrix matrix(data_.classes);
  const auto count = static_cast<std::size_t>(split.rows);
  matrix.add(std::span(split.labels.data_ptr<std::int64_t>(), count), std::span(progress.predictions).first(count));
  return matrix;
}

void run_checked(const TrainingOptions& options, const TrainingData& data, const PackContext& context, std::string engine,
                 std::string device, const std::vector<PackTrial>& trials, const std::function<void(const PackRules&)>& train) {
  try {
    check_training(options, data);
  } catch (const ModelError& error) {
    for (const PackTrial& trial : trials) tell(trial.job, Outcome::failed, error.what(), std::nullopt, engine, device, context);
    return;
  }
  train(PackRules(options, data, context, std::move(engine), std::move(device)));
}

}  // namespace fusion
