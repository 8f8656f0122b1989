#include "workers/train/stacked_trainer.h"

#include <algorithm>
#include <deque>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "model/device.h"
#include "workers/train/epoch_order.h"
#include "workers/train/stacked_features.h"
#include "workers/train/step_plan.h"

namespace fusion {
namespace {

using stacked::Backend;
using stacked::DeviceMemory;
using stacked::DeviceSplit;
using stacked::Plan;
using stacked::StreamedTile;
using stacked::UsedTaps;

constexpr std::int64_t kMostScoredRows = 512;  // at a time

/// One trial in training.
template <typename T>
struct Candidate : TrialProgress {
  std::unique_ptr<FusionNetwork> shared;  ///< with weight sharing: where its weights go back to
  std::unique_ptr<stacked::Network<T>> network;
};

/// What an epoch of some trials at the same epoch needs on the device.
template <typename T>
struct EpochCohort {
  EpochOrder order;
  DeviceMemory<T> order_memory, adam_memory;
  std::unique_ptr<StreamedTile<T>> tile;  ///< where features are streamed
};

template <typename T>
class StackedPack {
 public:
  StackedPack(const TrainingOptions& options, const TrainingData& data, const PackContext& context, Backend<T>& backend,
              const PackRules& rules, const StepObserver& on_step, const StackedSettings& settings)
      : options_(options),
        data_(data),
        context_(context),
        backend_(backend),
        rules_(rules),
        on_step_(on_step),
        settings_(settings),
        rows_(rules.rows()),
        widths_(tap_widths(data.train)),
        plan_(options, rows_),
        network_options_{FusionOptions{options.width, data.classes, options.batchnorm, options.alphas}, options.dropout, rules.batch(),
                         scored_rows()},
        budget_{feature_bytes(), 0},
        train_(backend, data.train, budget_, false),
        dev_(backend, data.dev, budget_, options.multitask) {
    if (options.evaluate_test) test_.emplace(backend, *data.test, budget_, options.multitask);
  }

  void run(std::vector<PackTrial> trials) {
    waiting_.assign(std::move_iterator(trials.begin()), std::move_iterator(trials.end()));
    room_ = rules_.room(waiting_.size());
    while (true) {
      while (live_.size() < room_ && !waiting_.empty()) begin_next();
      if (live_.size() < room_ && waiting_.empty() && context_.more) {
        for (PackTrial& trial : context_.more(room_ - live_.size())) waiting_.push_back(std::move(trial));
        if (!waiting_.empty()) continue;
      }
      if (live_.empty()) return;
      train_guarded();
      std::erase_if(live_, [](const auto& candidate) { return candidate->ended; });
    }
  }

 private:
  using Group = std::vector<Candidate<T>*>;

  std::int64_t scored_rows() const {
    const std::int64_t most = std::max(data_.dev.rows, options_.evaluate_test ? data_.test->rows : 0);
    return std::min(kMostScoredRows, most);
  }
  std::int64_t feature_bytes() const {
    if (settings_.feature_bytes >= 0) return settings_.feature_bytes;
    const std::optional<std::int64_t> free = backend_.free_bytes();
    if (!free) return std::numeric_limits<std::int64_t>::max();
    return (context_.memory_bytes > 0 ? std::min(*free, context_.memory_bytes) : *free) / 2;
  }

  // ---- beginnings

  /// The next trial that waits joins; or goes back to the others that wait, if there is no memory for it beside those in training.
  void begin_next() {
    auto candidate = std::make_unique<Candidate<T>>();
    candidate->trial = std::move(waiting_.front());
    waiting_.pop_front();
    bool fits = true;
    rules_.guarded(*candidate, [&] {
      try {
        begin(*candidate);
      } catch (const stacked::OutOfMemory&) {
        if (live_.empty()) throw;
        fits = false;
      }
    });
    if (!fits) {
      waiting_.push_front(std::move(candidate->trial));
      shrink(live_.size());
    } else if (!candidate->ended) {
      live_.push_back(std::move(candidate));
    }
  }

  void shrink(std::size_t room) {
    room_ = room;
    logger("train")->info("{} has memory for {} trials at once", backend_.device(), room_);
  }

  void begin(Candidate<T>& candidate) {
    const Stopwatch watch(candidate.total_s);
    const TrialJob& job = candidate.trial.job;
    auto network = std::make_unique<FusionNetwork>(job.architecture, widths_, network_options_.fusion, job.seed,
                                                   at::TensorOptions().dtype(sizeof(T) == sizeof(float) ? at::kFloat : at::kDouble));
    WeightBank* const bank = rules_.bank();
    if (bank) bank->load(*network);
    candidate.network = std::make_unique<stacked::Network<T>>(backend_, *network, widths_, job.seed, network_options_);
    candidate.score.parameters = candidate.network->parameters();
    if (bank) candidate.shared = std::move(network);
  }

  // ---- an epoch

  /// An error that is not one trial's ends all of them. OutOfMemory comes from an epoch's tables and buffers only, before its first step;
  /// then half of the trials begin anew later.
  void train_guarded() {
    const auto end_all = [&](const std::function<void()>& rethrow) {
      for (const auto& candidate : live_) {
        if (!candidate->ended) rules_.guarded(*candidate, rethrow);
      }
    };
    try {
      train_an_epoch();
    } catch (const stacked::OutOfMemory&) {
      if (live_.size() > 1) return set_back_half();
      end_all([] { throw stacked::OutOfMemory(); });
    } catch (...) {
      const std::exception_ptr problem = std::current_exception();
      end_all([&] { std::rethrow_exception(problem); });
    }
  }

  /// Those that came last have the least to lose. What they had trained is trained again, to the same figures.
  void set_back_half() {
    const std::size_t stay = (live_.size() + 1) / 2;
    while (live_.size() > stay) {
      if (!live_.back()->ended) waiting_.push_front(std::move(live_.back()->trial));
      live_.pop_back();
    }
    shrink(stay);
  }

  /// Every live trial by one epoch.
  void train_an_epoch() {
    Group group;
    std::map<int, std::int32_t> cohort_of;  // by epoch
    for (const auto& candidate : live_) {
      candidate->loss_sum = 0;
      candidate->epoch_s = 0;
      candidate->steps = candidate->epochs * rules_.steps_per_epoch();
      cohort_of.emplace(candidate->epochs, static_cast<std::int32_t>(cohort_of.size()));
      group.push_back(candidate.get());
    }
    double seconds = 0;
    train_epoch(group, cohort_of, seconds);
    share_time(group, seconds);
    std::erase_if(group, [](const auto* candidate) { return candidate->ended; });
    score(dev_, group);
    for (Candidate<T>* const candidate : group) {
      if (!candidate->ended) rules_.guarded(*candidate, [&] { finish_epoch(*candidate); });
    }
  }

  static void share_time(const Group& group, double seconds) {
    for (Candidate<T>* const candidate : group) candidate->epoch_s += seconds / static_cast<double>(group.size());
  }

  void train_epoch(const Group& group, const std::map<int, std::int32_t>& cohort_of, double& seconds) {
    const Stopwatch watch(seconds);
    std::vector<EpochCohort<T>> cohorts(cohort_of.size());
    std::vector<stacked::CohortSource<T>> sources(cohort_of.size());
    const UsedTaps used = used_taps(group);
    const bool resident = train_.hold(used);
    const std::int64_t tile_rows = resident ? rows_ : streamed_rows(data_.train, used, rules_.batch());
    for (const auto& [epoch, c] : cohort_of) {
      sources[c] = prepare(epoch, resident, used, tile_rows, cohorts[static_cast<std::size_t>(c)]);
    }
    std::vector<stacked::Member<T>> members;
    for (const Candidate<T>* const candidate : group) members.push_back({candidate->network.get(), cohort_of.at(candidate->epochs), nullptr});
    Plan<T> plan(backend_, network_options_, members, sources, train_.labels(), true);

    for (std::int64_t tile = 0; tile < rows_; tile += tile_rows) {
      const std::int64_t tile_end = std::min(tile + tile_rows, rows_);
      for (EpochCohort<T>& cohort : cohorts) {
        if (cohort.tile) {
          cohort.tile->fill(std::span(*cohort.order).subspan(static_cast<std::size_t>(tile), static_cast<std::size_t>(tile_end - tile)));
        }
      }
      const std::int64_t chunk = Plan<T>::kChunkSteps * rules_.batch();
      for (std::int64_t first = tile; first < tile_end; first += chunk) {
        look_at_stops(group, plan);
        if (std::all_of(group.begin(), group.end(), [](const auto* candidate) { return candidate->ended; })) return;
        train_chunk(group, plan, first, std::min(first + chunk, tile_end), tile);
      }
    }
  }

  /// The epoch's order and Adam's numbers go to the device.
  stacked::CohortSource<T> prepare(int epoch, bool resident, const UsedTaps& used, std::int64_t tile_rows, EpochCohort<T>& cohort) {
    stacked::CohortSource<T> source;
    cohort.order = epoch_order(data_.train.rows, options_.shuffle, context_.order_seed, epoch);
    const auto order_bytes = static_cast<std::int64_t>(cohort.order->size() * sizeof(std::uint32_t));
    cohort.order_memory = DeviceMemory<T>(backend_, order_bytes);
    backend_.upload(cohort.order_memory.data(), cohort.order->data(), order_bytes);
    std::vector<plain::AdamStep<T>> adam;
    const std::int64_t steps = rules_.steps_per_epoch();
    for (std::int64_t s = 0; s < steps; ++s) adam.push_back(plan_.adam(epoch * steps + s));
    const auto adam_bytes = static_cast<std::int64_t>(adam.size() * sizeof(plain::AdamStep<T>));
    cohort.adam_memory = DeviceMemory<T>(backend_, adam_bytes);
    backend_.upload(cohort.adam_memory.data(), adam.data(), adam_bytes);
    source.cohort.order = static_cast<const std::uint32_t*>(cohort.order_memory.data());
    source.cohort.adam = static_cast<const plain::AdamStep<T>*>(cohort.adam_memory.data());
    source.cohort.seen = epoch * rows_;
    source.cohort.streamed = !resident;
    if (!resident) cohort.tile = std::make_unique<StreamedTile<T>>(backend_, data_.train, used, tile_rows);
    source.taps = resident ? train_.taps() : cohort.tile->taps();
    return source;
  }

  void look_at_stops(const Group& group, Plan<T>& plan) {
    for (std::size_t k = 0; k < group.size(); ++k) {
      Candidate<T>& candidate = *group[k];
      if (candidate.ended) continue;
      if (candidate.trial.cancel.stop_requested()) {
        rules_.end(candidate, Outcome::cancelled, "training was stopped " + rules_.place(candidate));
      } else if (candidate.trial.prune.stop_requested()) {
        rules_.guarded(candidate, [&] { prune(candidate); });
      }
      if (candidate.ended) plan.stop(k);
    }
  }

  void train_chunk(const Group& group, Plan<T>& plan, std::int64_t first, std::int64_t end, std::int64_t tile) {
    const std::int64_t batch = rules_.batch();
    const auto steps = static_cast<std::int32_t>((end - first + batch - 1) / batch);
    const std::vector<double> losses = plan.train(first, rows_, tile, steps);
    for (std::size_t k = 0; k < group.size(); ++k) {
      Candidate<T>& candidate = *group[k];
      if (candidate.ended) continue;
      for (std::int32_t s = 0; s < steps && !candidate.ended; ++s) {
        const double loss = losses[static_cast<std::size_t>(s) * group.size() + k];
        const std::int64_t count = std::min(batch, rows_ - first - s * batch);
        if (on_step_) on_step_(candidate.trial.job, candidate.steps, loss / static_cast<double>(count));
        rules_.note_loss(candidate, loss);
      }
      if (candidate.ended) plan.stop(k);
    }
  }

  // ---- scores and ends

  /// The predictions of all rows of a split, by all of these trials: at once, or by halves where there is no memory for that.
  void score(DeviceSplit<T>& split, const Group& group) {
    if (group.empty()) return;
    double seconds = 0;
    try {
      const Stopwatch watch(seconds);
      predict(split, group);
    } catch (const stacked::OutOfMemory&) {
      if (group.size() == 1) return rules_.guarded(*group.front(), [] { throw stacked::OutOfMemory(); });
      const auto middle = group.begin() + static_cast<std::ptrdiff_t>(group.size() / 2);
      score(split, Group(group.begin(), middle));
      score(split, Group(middle, group.end()));
    }
    share_time(group, seconds);
  }

  void predict(DeviceSplit<T>& split, const Group& group) {
    const std::int64_t rows = split.split().rows;
    const UsedTaps used = used_taps(group);
    const bool resident = split.hold(used);
    const std::int64_t tile_rows = resident ? rows : std::min(rows, streamed_rows(split.split(), used, network_options_.scored_rows));
    std::optional<StreamedTile<T>> tile;
    if (!resident) tile.emplace(backend_, split.split(), used, tile_rows);
    stacked::CohortSource<T> source;
    source.cohort.streamed = !resident;
    source.taps = resident ? split.taps() : tile->taps();

    const std::int64_t bytes = rows * static_cast<std::int64_t>(sizeof(std::int32_t));
    const DeviceMemory<T> memory(backend_, bytes * static_cast<std::int64_t>(group.size()));
    std::vector<stacked::Member<T>> members;
    for (std::size_t k = 0; k < group.size(); ++k) {
      members.push_back({group[k]->network.get(), 0, static_cast<std::int32_t*>(memory.data()) + static_cast<std::int64_t>(k) * rows});
    }
    Plan<T> plan(backend_, network_options_, members, std::span(&source, 1), split.labels(), false);
    for (std::int64_t begin = 0; begin < rows; begin += tile_rows) {
      const std::int64_t end = std::min(begin + tile_rows, rows);
      if (tile) tile->fill(begin, end - begin);
      for (std::int64_t first = begin; first < end; first += network_options_.scored_rows) {
        plan.score(first, std::min(network_options_.scored_rows, end - first), begin);
      }
    }
    std::vector<std::int32_t> classes(static_cast<std::size_t>(rows));
    for (std::size_t k = 0; k < group.size(); ++k) {
      backend_.download(classes.data(), members[k].predictions, bytes);
      group[k]->predictions.assign(classes.begin(), classes.end());
    }
  }

  void finish_epoch(Candidate<T>& candidate) {
    if (rules_.finish_epoch(candidate, plan_.learning_rate(candidate.steps - 1))) candidate.network->keep();
    if (!candidate.ended && candidate.epochs == options_.epochs) complete(candidate, Outcome::completed, "");
  }

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
    if (test_) {
      score(*test_, {&candidate});
      if (candidate.ended) return;
      rules_.note_test(candidate);
    }
    rules_.complete(candidate, outcome, std::move(error));
  }

  // ---- features

  UsedTaps used_taps(const Group& group) const {
    UsedTaps used = no_taps(data_.train);
    for (const Candidate<T>* const candidate : group) mark_taps(candidate->trial.job.architecture, used);
    return used;
  }

  /// Rows of a tile that is streamed: whole batches.
  std::int64_t streamed_rows(const FeatureSplit& split, const UsedTaps& used, std::int64_t batch) const {
    const std::int64_t batch_bytes = FeatureTile<float>::row_bytes(split, used) * batch;
    const std::int64_t batches = (split.rows + batch - 1) / batch;
    return std::clamp<std::int64_t>(settings_.tile_bytes / batch_bytes, 1, batches) * batch;
  }

  const TrainingOptions& options_;
  const TrainingData& data_;
  const PackContext& context_;
  Backend<T>& backend_;
  const PackRules& rules_;
  const StepObserver& on_step_;
  const StackedSettings& settings_;
  const std::int64_t rows_;
  const TapWidths widths_;
  StepPlan<T> plan_;
  const stacked::NetworkOptions network_options_;
  stacked::FeatureBudget budget_;
  DeviceSplit<T> train_, dev_;
  std::optional<DeviceSplit<T>> test_;
  std::deque<PackTrial> waiting_;
  std::size_t room_ = 0;
  std::vector<std::unique_ptr<Candidate<T>>> live_;
};

}  // namespace

template <typename T>
void train_stacked(std::vector<PackTrial> trials, const TrainingOptions& options, const TrainingData& data, const PackContext& context,
                   stacked::Backend<T>& backend, const StepObserver& on_step, const StackedSettings& settings) {
  prepare_training_thread();
  run_checked(options, data, context, "stacked", backend.device(), trials, [&](const PackRules& rules) {
    std::optional<StackedPack<T>> pack;
    try {
      pack.emplace(options, data, context, backend, rules, on_step, settings);
    } catch (...) {  // not even the labels fit, or the device is broken
      const std::exception_ptr problem = std::current_exception();
      for (PackTrial& trial : trials) {
        TrialProgress progress;
        progress.trial = std::move(trial);
        rules.guarded(progress, [&] { std::rethrow_exception(problem); });
      }
      return;
    }
    pack->run(std::move(trials));
  });
}

template void train_stacked<float>(std::vector<PackTrial>, const TrainingOptions&, const TrainingData&, const PackContext&,
                                   stacked::Backend<float>&, const StepObserver&, const StackedSettings&);
template void train_stacked<double>(std::vector<PackTrial>, const TrainingOptions&, const TrainingData&, const PackContext&,
                                    stacked::Backend<double>&, const StepObserver&, const StackedSettings&);

}  // namespace fusion
