#include "workers/train/plain_trainer.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "model/device.h"
#include "workers/train/epoch_order.h"
#include "workers/train/feature_tile.h"
#include "workers/train/plain_network.h"
#include "workers/train/step_plan.h"

namespace fusion {
namespace {

using UsedTaps = std::vector<std::vector<bool>>;

constexpr std::int64_t kTileBytes = 2 << 20;  // between the second- and the third-level cache; measured best
constexpr std::int64_t kMostTileBatches = 64;
constexpr std::int64_t kMostScoredRows = 512;   // at a time

/// One trial in training.
template <typename T>
struct Candidate : TrialProgress {
  std::unique_ptr<FusionNetwork> shared;  ///< with weight sharing: where its weights go back to
  std::unique_ptr<plain::Network<T>> network;
};

template <typename T>
class PlainPack {
 public:
  PlainPack(const TrainingOptions& options, const TrainingData& data, const PackContext& context, const PackRules& rules,
            const StepObserver& on_step)
      : options_(options),
        data_(data),
        context_(context),
        rules_(rules),
        on_step_(on_step),
        rows_(rules.rows()),
        batch_(rules.batch()),
        widths_(tap_widths(data.train)),
        plan_(options, rows_) {}

  void run(std::vector<PackTrial> trials) {
    std::deque<PackTrial> waiting(std::move_iterator(trials.begin()), std::move_iterator(trials.end()));
    const std::size_t room = rules_.room(waiting.size());
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
    rules_.guarded(*candidate, [&] {
      const Stopwatch watch(candidate->total_s);
      auto network = std::make_unique<FusionNetwork>(
          job.architecture, widths_, FusionOptions{options_.width, data_.classes, options_.batchnorm, options_.alphas}, job.seed,
          at::TensorOptions().dtype(std::is_same_v<T, float> ? at::kFloat : at::kDouble));
      WeightBank* const bank = rules_.bank();
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
        rules_.guarded(*candidate, [&] { train_tile_of(*candidate, tile, count, epoch * rows_ + begin); });
      }
    }
  }

  void train_tile_of(Candidate<T>& candidate, const FeatureTile<T>& tile, std::int64_t rows, std::int64_t seen) {
    if (candidate.trial.cancel.stop_requested()) {
      return rules_.end(candidate, Outcome::cancelled, "training was stopped " + rules_.place(candidate));
    }
    if (candidate.trial.prune.stop_requested()) return prune(candidate);
    const Stopwatch watch(candidate.epoch_s);
    for (std::int64_t begin = 0; begin < rows; begin += batch_) {
      const std::int64_t count = std::min(batch_, rows - begin);
      const double loss = candidate.network->train(tile, begin, count, seen + begin, plan_.adam(candidate.steps), work_);
      if (on_step_) on_step_(candidate.trial.job, candidate.steps, loss / static_cast<double>(count));
      rules_.note_loss(candidate, loss);
      if (candidate.ended) return;
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
      if (!candidate->ended) rules_.guarded(*candidate, [&] { finish_epoch(*candidate); });
    }
  }

  void finish_epoch(Candidate<T>& candidate) {
    if (rules_.finish_epoch(candidate, plan_.learning_rate(candidate.steps - 1))) candidate.network->keep();
    if (!candidate.ended && candidate.epochs == options_.epochs) complete(candidate, Outcome::completed, "");
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

  // ---- ends

  void prune(Candidate<T>& candidate) {
    const std::string text = "training was pruned " + rules_.place(candidate);
    if (candidate.epochs == 0) return rules_.end(candidate, Outcome::failed, text);
    complete(candidate, Outcome::pruned, text);
  }

  void complete(Candidate<T>& candidate, Outcome outcome, std::string error) {
    candidate.epoch_s = 0;
    candidate.network->restore();
    if (candidate.shared) {
      candidate.network->copy_to(*candidate.shared);
      rules_.bank()->store(*candidate.shared);
    }
    if (options_.evaluate_test) {
      candidate.predictions.resize(static_cast<std::size_t>(std::max(data_.dev.rows, data_.test->rows)));
      predict(*data_.test, {&candidate});
      rules_.note_test(candidate);
    }
    rules_.complete(candidate, outcome, std::move(error));
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
  const PackRules& rules_;
  const StepObserver& on_step_;
  const std::int64_t rows_, batch_;
  const TapWidths widths_;
  StepPlan<T> plan_;
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
  run_checked(options, data, context, "plain", "cpu", trials, [&](const PackRules& rules) {
    PlainPack<T>(options, data, context, rules, on_step).run(std::move(trials));
  });
}

template void train_plain<float>(std::vector<PackTrial>, const TrainingOptions&, const TrainingData&, const PackContext&,
                                 const StepObserver&);
template void train_plain<double>(std::vector<PackTrial>, const TrainingOptions&, const TrainingData&, const PackContext&,
                                  const StepObserver&);

}  // namespace fusion
