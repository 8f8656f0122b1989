#include "workers/train/plain_trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/version.h"
#include "model/device.h"
#include "model/torch_compat.h"
#include "workers/train/epoch_order.h"
#include "workers/train/feature_tile.h"
#include "workers/train/metrics.h"
#include "workers/train/plain_network.h"
#include "workers/train/schedule.h"

namespace fusion {
namespace {

using SteadyClock = std::chrono::steady_clock;
using UsedTaps = std::vector<std::vector<bool>>;

constexpr std::int64_t kTileBytes = 2 << 20;  // between the second- and the third-level cache; measured best
constexpr std::int64_t kMostTileBatches = 64;
constexpr std::int64_t kMostScoredRows = 512;   // at a time

/// Adds the time it lives to a figure.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() { seconds_ += std::chrono::duration<double>(SteadyClock::now() - start_).count(); }

 private:
  double& seconds_;
  SteadyClock::time_point start_ = SteadyClock::now();
};

/// Adam's numbers for every step of a training; all trials of a pack have the same.
template <typename T>
class StepPlan {
 public:
  StepPlan(const TrainingOptions& options, std::int64_t rows) : options_(options), schedule_(options, rows) {}

  const plain::AdamStep<T>& adam(std::int64_t step) {
    while (static_cast<std::int64_t>(steps_.size()) <= step) extend();
    return steps_[static_cast<std::size_t>(step)];
  }
  double learning_rate(std::int64_t step) const { return rates_[static_cast<std::size_t>(step)]; }

 private:
  void extend() {
    constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8;
    const double rate = schedule_.next();
    const auto t = static_cast<double>(steps_.size() + 1);
    rates_.push_back(rate);
    steps_.push_back({static_cast<T>(kBeta1), static_cast<T>(1 - kBeta1), static_cast<T>(kBeta2), static_cast<T>(1 - kBeta2),
                      static_cast<T>(kEps), static_cast<T>(options_.weight_decay),
                      static_cast<T>(1 / std::sqrt(1 - std::pow(kBeta2, t))), static_cast<T>(rate / (1 - std::pow(kBeta1, t)))});
  }

  const TrainingOptions& options_;
  CosineSchedule schedule_;
  std::vector<plain::AdamStep<T>> steps_;
  std::vector<double> rates_;
};

/// One trial in training.
template <typename T>
struct Candidate {
  PackTrial trial;
  std::unique_ptr<FusionNetwork> shared;  ///< with weight sharing: where its weights go back to
  std::unique_ptr<plain::Network<T>> network;
  int epochs = 0;         ///< that are finished
  std::int64_t steps = 0;
  double loss_sum = 0;    ///< of the epoch's rows so far
  double epoch_s = 0, total_s = 0;
  Score score;
  std::vector<std::int64_t> predictions;
  bool ended = false;
};

template <typename T>
class PlainPack {
 public:
  PlainPack(const TrainingOptions& options, const TrainingData& data, const PackContext& context, const StepObserver& on_step)
      : options_(options),
        data_(data),
        context_(context),
        on_step_(on_step),
        rows_(rows_per_epoch(options, data.train)),
        batch_(std::min<std::int64_t>(options.batch, rows_)),
        widths_(tap_widths(data.train)),
        plan_(options, rows_),
        constant_loss_(options.multitask ? stored_logits_loss(data.train) : 0) {}

  void run(std::vector<PackTrial> trials) {
    std::deque<PackTrial> waiting(std::move_iterator(trials.begin()), std::move_iterator(trials.end()));
    const std::size_t room = options_.weight_sharing ? 1 : std::max<std::size_t>(context_.room > 0 ? context_.room : waiting.size(), 1);
    while (true) {
      while (live_.size() < room && !waiting.empty()) {
        begin(std::move(waiting.front()));
        waiting.pop_front();
      }
      if (live_.size() < room && waiting.empty() && context_.more) {
        for (PackTrial& trial : context_.more(room - live_.size())) waiting.push_back(std::move(trial));
        if (!waiting.empty()) continue;
      }
      if (live_.empty()) return;
      train_an_epoch();
    }
  }

 private:
  using Group = std::vector<Candidate<T>*>;

  void begin(PackTrial trial) {
    auto candidate = std::make_unique<Candidate<T>>();
    candidate->trial = std::move(trial);
    const TrialJob& job = candidate->trial.job;
    guarded(*candidate, [&] {
      const Stopwatch watch(candidate->total_s);
      auto network = std::make_unique<FusionNetwork>(
          job.architecture, widths_, FusionOptions{options_.width, data_.classes, options_.batchnorm, options_.alphas}, job.seed,
          at::TensorOptions().dtype(std::is_same_v<T, float> ? at::kFloat : at::kDouble));
      WeightBank* const bank = options_.weight_sharing ? context_.bank : nullptr;
      if (bank) bank->load(*network);
      candidate->network = std::make_unique<plain::Network<T>>(*network, widths_, job.seed, options_.dropout);
      candidate->score.parameters = candidate->network->parameters();
      candidate->predictions.resize(static_cast<std::size_t>(data_.dev.rows));
      if (bank) candidate->shared = std::move(network);
    });
    if (!candidate->ended) live_.push_back(std::move(candidate));
  }

  /// Every live trial by one epoch, those at the same epoch together; then the ended ones leave.
  void train_an_epoch() {
    std::map<int, Group> by_epoch;
    for (const auto& candidate : live_) by_epoch[candidate->epochs].push_back(candidate.get());
    for (auto& [epoch, group] : by_epoch) {
      train_group(epoch, group);
      score_group(group);
    }
    std::erase_if(live_, [](const auto& candidate) { return candidate->ended; });
  }

  void train_group(int epoch, const Group& group) {
    for (Candidate<T>* const candidate : group) {
      candidate->loss_sum = 0;
      candidate->epoch_s = 0;
    }
    const EpochOrder order = epoch_order(data_.train.rows, options_.shuffle, context_.order_seed, epoch);
    FeatureTile<T>& tile = train_tile(group);
    for (std::int64_t begin = 0; begin < rows_; begin += tile.room()) {
      const std::int64_t count = std::min(tile.room(), rows_ - begin);
      double gather_s = 0;
      {
        const Stopwatch watch(gather_s);
        tile.fill(std::span(*order).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)));
      }
      for (Candidate<T>* const candidate : group) {
        if (candidate->ended) continue;
        candidate->epoch_s += gather_s / static_cast<double>(group.size());
        guarded(*candidate, [&] { train_tile_of(*candidate, tile, count, epoch * rows_ + begin); });
      }
    }
  }

  void train_tile_of(Candidate<T>& candidate, const FeatureTile<T>& tile, std::int64_t rows, std::int64_t seen) {
    if (candidate.trial.cancel.stop_requested()) return end(candidate, Outcome::cancelled, "training was stopped " + place(candidate));
    if (candidate.trial.prune.stop_requested()) return prune(candidate);
    const Stopwatch watch(candidate.epoch_s);
    for (std::int64_t begin = 0; begin < rows; begin += batch_) {
      const std::int64_t count = std::min(batch_, rows - begin);
      const double loss = candidate.network->train(tile, begin, count, seen + begin, plan_.adam(candidate.steps), work_);
      if (on_step_) on_step_(candidate.trial.job, candidate.steps, loss / static_cast<double>(count));
      if (!std::isfinite(loss)) {
        return end(candidate, Outcome::failed,
                   "the training loss became " + std::to_string(loss) + " " + place(candidate) + "; expected a finite number");
      }
      ++candidate.steps;
      candidate.loss_sum += loss;
    }
  }

  /// Dev for all that have finished the epoch, then what follows from it.
  void score_group(const Group& group) {
    Group scored;
    for (Candidate<T>* const candidate : group) {
      if (!candidate->ended) scored.push_back(candidate);
    }
    predict(data_.dev, scored);
    for (Candidate<T>* const candidate : scored) {
      if (!candidate->ended) guarded(*candidate, [&] { finish_epoch(*candidate); });
    }
  }

  void finish_epoch(Candidate<T>& candidate) {
    Score& score = candidate.score;
    score.train_loss = candidate.loss_sum / static_cast<double>(rows_) + constant_loss_;
    if (!std::isfinite(score.train_loss)) {
      return end(candidate, Outcome::failed, "the loss of the backbones' stored logits is not a finite number");
    }
    const ConfusionMatrix dev = confusion(data_.dev, candidate);
    const double dev_score = dev.score(options_.metric);
    ++candidate.epochs;
    if (dev_score > score.dev_score) {
      score.dev_score = dev_score;
      score.best_epoch = candidate.epochs;
      score.dev_accuracy = dev.accuracy();
      score.dev_weighted_f1 = dev.weighted_f1();
      score.dev_macro_f1 = dev.macro_f1();
      candidate.network->keep();
    }
    candidate.total_s += candidate.epoch_s;
    if (context_.on_epoch) {
      context_.on_epoch(candidate.trial.job, EpochReport{candidate.epochs, score.train_loss, dev_score,
                                                         plan_.learning_rate(candidate.steps - 1), candidate.epoch_s});
    }
    if (candidate.epochs == options_.epochs) complete(candidate, Outcome::completed, "");
  }

  // ---- scoring

  void predict(const FeatureSplit& split, const Group& group) {
    if (group.empty()) return;
    const UsedTaps used = used_taps(group);
    const std::int64_t rows =
        std::clamp<std::int64_t>(kTileBytes / FeatureTile<T>::row_bytes(split, used), std::min<std::int64_t>(64, split.rows), kMostScoredRows);
    FeatureTile<T> tile(split, used, rows, options_.multitask);
    for (std::int64_t begin = 0; begin < split.rows; begin += rows) {
      const std::int64_t count = std::min(rows, split.rows - begin);
      tile.fill(begin, count);
      for (Candidate<T>* const candidate : group) {
        const Stopwatch watch(candidate->epoch_s);
        candidate->network->predict(tile, 0, count, options_.multitask, work_, candidate->predictions.data() + begin);
      }
    }
  }

  ConfusionMatrix confusion(const FeatureSplit& split, const Candidate<T>& candidate) const {
    ConfusionMatrix matrix(data_.classes);
    const auto count = static_cast<std::size_t>(split.rows);
    matrix.add(std::span(split.labels.data_ptr<std::int64_t>(), count), std::span(candidate.predictions).first(count));
    return matrix;
  }

  // ---- ends

  std::string place(const Candidate<T>& candidate) const {
    const std::int64_t per_epoch = (rows_ + batch_ - 1) / batch_;
    return "in epoch " + std::to_string(candidate.steps / per_epoch + 1) + ", step " + std::to_string(candidate.steps % per_epoch + 1);
  }

  void prune(Candidate<T>& candidate) {
    const std::string text = "training was pruned " + place(candidate);
    if (candidate.epochs == 0) return end(candidate, Outcome::failed, text);
    complete(candidate, Outcome::pruned, text);
  }

  void complete(Candidate<T>& candidate, Outcome outcome, std::string error) {
    candidate.epoch_s = 0;
    candidate.network->restore();
    if (candidate.shared) {
      candidate.network->copy_to(*candidate.shared);
      context_.bank->store(*candidate.shared);
    }
    if (options_.evaluate_test) {
      candidate.predictions.resize(static_cast<std::size_t>(std::max(data_.dev.rows, data_.test->rows)));
      predict(*data_.test, {&candidate});
      candidate.score.test_score = confusion(*data_.test, candidate).score(options_.metric);
    }
    candidate.score.train_s = candidate.total_s + candidate.epoch_s;
    end(candidate, outcome, std::move(error), candidate.score);
  }

  void end(Candidate<T>& candidate, Outcome outcome, std::string error, std::optional<Score> score = std::nullopt) {
    candidate.ended = true;
    candidate.network.reset();
    end_trial(candidate.trial.job, outcome, std::move(error), std::move(score), context_);
  }

 public:
  static void end_trial(const TrialJob& job, Outcome how, std::string error, std::optional<Score> score, const PackContext& context) {
    TrialOutcome outcome;
    outcome.trial = job.trial;
    outcome.attempt = job.attempt;
    outcome.outcome = how;
    outcome.score = std::move(score);
    outcome.error = std::move(error);
    outcome.engine = "plain";
    outcome.device = "cpu";
    outcome.code_version = kCodeVersion;
    outcome.torch_version = compat::kTorchVersion;
    context.on_end(std::move(outcome));
  }

 private:
  /// An error of one trial ends that trial.
  template <typename Work>
  void guarded(Candidate<T>& candidate, Work&& work) {
    try {
      work();
    } catch (const Error& error) {
      end(candidate, Outcome::failed, error.what());
    } catch (const c10::Error& error) {
      const bool memory = compat::is_out_of_memory(error);
      end(candidate, memory ? Outcome::oom : Outcome::failed,
          (memory ? "memory ran out on cpu: " : "training failed on cpu: ") + compat::message_of(error));
    } catch (const std::bad_alloc&) {
      end(candidate, Outcome::oom, "memory ran out on cpu (the host's)");
    }
  }

  // ---- tiles

  UsedTaps used_taps(const Group& group) const {
    UsedTaps used = no_taps(data_.train);
    for (const Candidate<T>* const candidate : group) mark_taps(candidate->trial.job.architecture, used);
    return used;
  }

  FeatureTile<T>& train_tile(const Group& group) {
    UsedTaps used = used_taps(group);
    if (!tile_ || used != tile_used_) {
      tile_.reset();
      const std::int64_t batch_bytes = FeatureTile<T>::row_bytes(data_.train, used) * batch_;
      const std::int64_t in_epoch = (rows_ + batch_ - 1) / batch_;
      const std::int64_t batches = std::clamp<std::int64_t>(kTileBytes / batch_bytes, 1, std::min(kMostTileBatches, in_epoch));
      tile_.emplace(data_.train, used, batches * batch_);
      tile_used_ = std::move(used);
    }
    return *tile_;
  }

  const TrainingOptions& options_;
  const TrainingData& data_;
  const PackContext& context_;
  const StepObserver& on_step_;
  const std::int64_t rows_, batch_;
  const TapWidths widths_;
  StepPlan<T> plan_;
  const double constant_loss_;  ///< with multitask
  std::vector<std::unique_ptr<Candidate<T>>> live_;
  std::optional<FeatureTile<T>> tile_;
  UsedTaps tile_used_;
  plain::Workspace<T> work_;
};

}  // namespace

template <typename T>
void train_plain(std::vector<PackTrial> trials, const TrainingOptions& options, const TrainingData& data, const PackContext& context,
                 const StepObserver& on_step) {
  prepare_training_thread();
  try {
    check_training(options, data);
  } catch (const ModelError& error) {
    for (const PackTrial& trial : trials) PlainPack<T>::end_trial(trial.job, Outcome::failed, error.what(), std::nullopt, context);
    return;
  }
  PlainPack<T>(options, data, context, on_step).run(std::move(trials));
}

template void train_plain<float>(std::vector<PackTrial>, const TrainingOptions&, const TrainingData&, const PackContext&,
                                 const StepObserver&);
template void train_plain<double>(std::vector<PackTrial>, const TrainingOptions&, const TrainingData&, const PackContext&,
                                  const StepObserver&);

}  // namespace fusion
