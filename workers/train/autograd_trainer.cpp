#include "workers/train/autograd_trainer.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cross_entropy_loss.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <new>
#include <optional>
#include <span>

#include "base/error.h"
#include "base/version.h"
#include "model/adam.h"
#include "model/device.h"
#include "model/torch_compat.h"
#include "workers/train/batch_feed.h"
#include "workers/train/metrics.h"
#include "workers/train/schedule.h"

namespace fusion {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr std::int64_t kEvaluationRows = 4096;  // at a time

double seconds_since(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

/// Ends a training early; becomes the outcome.
struct Ended {
  Outcome outcome;
  std::string error;
};

class TrialTraining {
 public:
  TrialTraining(const TrialJob& job, const TrainingOptions& options, const TrainingData& data, const TrainingContext& context,
                c10::Device device)
      : options_(options),
        data_(data),
        context_(context),
        device_(device),
        rows_(rows_per_epoch(options, data.train)),
        network_(job.architecture, tap_widths(data.train),
                 FusionOptions{options.width, data.classes, options.batchnorm, options.alphas}, job.seed,
                 at::TensorOptions().device(device)),
        adam_(network_.parameters().tensors(), AdamOptions{.weight_decay = options.weight_decay}),
        schedule_(options, rows_),
        feed_(data.train, job.architecture,
              BatchFeed::Options{options.batch, options.width, options.dropout, options.shuffle, context.order_seed, job.seed, rows_}, device) {}

  /// Completed, or pruned; any other end is thrown.
  TrialOutcome run() {
    TrialOutcome outcome;
    const auto start = SteadyClock::now();
    WeightBank* const bank = options_.weight_sharing ? context_.bank : nullptr;
    if (bank) bank->load(network_);
    if (options_.multitask) constant_loss_ = stored_logits_loss(data_.train);
    keep_best();
    try {
      for (int epoch = 0; epoch < options_.epochs; ++epoch) run_epoch(epoch);
    } catch (const Ended& ended) {
      if (ended.outcome != Outcome::pruned || epochs_done_ == 0) throw;
      outcome.outcome = ended.outcome;
      outcome.error = ended.error;
    }
    network_.parameters().restore(best_parameters_);
    network_.buffers().restore(best_buffers_);
    if (bank) bank->store(network_);
    if (options_.evaluate_test) score_.test_score = evaluate(*data_.test).score(options_.metric);
    score_.parameters = network_.parameters().count();
    score_.train_s = seconds_since(start);
    outcome.score = score_;
    return outcome;
  }

 private:
  void run_epoch(int epoch) {
    const auto start = SteadyClock::now();
    double loss_sum = 0;
    double learning_rate = 0;
    std::int64_t step = 0;
    feed_.begin_epoch(epoch);
    while (const Batch* const batch = feed_.next()) {
      ++step;
      const auto where = [&] { return "in epoch " + std::to_string(epoch + 1) + ", step " + std::to_string(step); };
      if (context_.cancel.stop_requested()) throw Ended{Outcome::cancelled, "training was stopped " + where()};
      if (context_.prune.stop_requested()) throw Ended{Outcome::pruned, "training was pruned " + where()};
      learning_rate = schedule_.next();
      const double loss = train_batch(*batch, learning_rate);
      if (!std::isfinite(loss)) {
        throw Ended{Outcome::failed, "the training loss became " + std::to_string(loss) + " " + where() +
                                         "; expected a finite number"};
      }
      loss_sum += loss * static_cast<double>(batch->rows);
    }
    score_.train_loss = loss_sum / static_cast<double>(rows_) + constant_loss_;
    if (!std::isfinite(score_.train_loss)) {
      throw Ended{Outcome::failed, "the loss of the backbones' stored logits is not a finite number"};
    }
    const ConfusionMatrix dev = evaluate(data_.dev);
    const double dev_score = dev.score(options_.metric);
    if (dev_score > score_.dev_score) {
      score_.dev_score = dev_score;
      score_.best_epoch = epoch + 1;
      score_.dev_accuracy = dev.accuracy();
      score_.dev_weighted_f1 = dev.weighted_f1();
      score_.dev_macro_f1 = dev.macro_f1();
      keep_best();
    }
    ++epochs_done_;
    if (context_.on_epoch) {
      context_.on_epoch(EpochReport{epoch + 1, score_.train_loss, dev_score, learning_rate, seconds_since(start)});
    }
  }

  double train_batch(const Batch& batch, double learning_rate) {
    adam_.clear_gradients();
    const at::Tensor logits = network_.forward(batch.joined, batch.masks, true);  // [B, classes]
    const at::Tensor loss = at::cross_entropy_loss(logits, batch.labels);
    loss.backward();
    adam_.step(learning_rate);
    return loss.is_cpu() ? *loss.data_ptr<float>() : loss.item<float>();
  }

  ConfusionMatrix evaluate(const FeatureSplit& split) const {
    const at::NoGradGuard no_grad;
    ConfusionMatrix matrix(data_.classes);
    const std::vector<FusionStep>& steps = network_.architecture().steps;
    for (std::int64_t begin = 0; begin < split.rows; begin += kEvaluationRows) {
      const std::int64_t rows = std::min(kEvaluationRows, split.rows - begin);
      std::vector<std::vector<at::Tensor>> taps(split.taps.size());
      for (std::size_t m = 0; m < taps.size(); ++m) {
        taps[m].resize(split.taps[m].size());
        for (const FusionStep& step : steps) {
          const auto i = static_cast<std::size_t>(step.taps[m]);
          if (!taps[m][i].defined()) taps[m][i] = split.taps[m][i].narrow(0, begin, rows).to(device_, at::kFloat);
        }
      }
      std::vector<at::Tensor> joined;
      for (std::size_t i = 0; i < steps.size(); ++i) joined.push_back(network_.join(i, taps));
      at::Tensor logits = network_.forward(joined, {}, false);  // [rows, classes]
      if (options_.multitask) {
        for (const at::Tensor& stored : split.logits) logits = logits.add(stored.narrow(0, begin, rows).to(device_));
      }
      const at::Tensor predicted = at::argmax(logits, 1).to(at::kCPU);
      const auto count = static_cast<std::size_t>(rows);
      matrix.add(std::span(split.labels.data_ptr<std::int64_t>() + begin, count),
                 std::span(predicted.data_ptr<std::int64_t>(), count));
    }
    return matrix;
  }

  void keep_best() {
    best_parameters_ = network_.parameters().snapshot();
    best_buffers_ = network_.buffers().snapshot();
  }

  const TrainingOptions& options_;
  const TrainingData& data_;
  const TrainingContext& context_;
  const c10::Device device_;
  const std::int64_t rows_;
  FusionNetwork network_;
  Adam adam_;
  CosineSchedule schedule_;
  BatchFeed feed_;
  double constant_loss_ = 0;  ///< with multitask
  int epochs_done_ = 0;
  at::Tensor best_parameters_, best_buffers_;
  Score score_;
};

}  // namespace

TrialOutcome train_trial(const TrialJob& job, const TrainingOptions& options, const TrainingData& data,
                         const TrainingContext& context) {
  const c10::Device device = device_from_text(context.device);
  prepare_training_thread();
  TrialOutcome outcome;
  const auto end_with = [&](Outcome how, std::string error) {
    outcome.outcome = how;
    outcome.error = std::move(error);
  };
  try {
    check_training(options, data);
    outcome = TrialTraining(job, options, data, context, device).run();
  } catch (const Ended& ended) {
    end_with(ended.outcome == Outcome::pruned ? Outcome::failed : ended.outcome, ended.error);
  } catch (const Error& error) {
    end_with(Outcome::failed, error.what());
  } catch (const c10::Error& error) {
    const bool memory = compat::is_out_of_memory(error);
    end_with(memory ? Outcome::oom : Outcome::failed,
             (memory ? "memory ran out on " : "training failed on ") + device.str() + ": " + compat::message_of(error));
  } catch (const std::bad_alloc&) {
    end_with(Outcome::oom, "memory ran out on " + device.str() + " (the host's)");
  }
  outcome.trial = job.trial;
  outcome.attempt = job.attempt;
  outcome.engine = "autograd";
  outcome.device = device.str();
  outcome.code_version = kCodeVersion;
  outcome.torch_version = compat::kTorchVersion;
  return outcome;
}

}  // namespace fusion
