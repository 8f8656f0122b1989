#include "workers/train/retrain.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <new>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "model/device.h"
#include "model/torch_compat.h"
#include "workers/train/checkpoint.h"
#include "workers/train/epoch_order.h"
#include "workers/train/evaluation.h"
#include "workers/train/model_cost.h"
#include "workers/train/prefetch_feed.h"
#include "workers/train/rank_group.h"
#include "workers/train/rate_schedule.h"
#include "workers/train/retrain_artifacts.h"
#include "workers/train/retrain_inputs.h"
#include "workers/train/retrain_step.h"
#include "workers/train/step_shares.h"

// A resumed training must give the same bytes. So all that an epoch depends on is either in the checkpoint (weights, buffers, moments, best
// weights, rows at once), or a function of seed and epoch (order, dropout), or follows from the epochs that are done (schedule).

namespace fusion {
namespace {

using SteadyClock = std::chrono::steady_clock;
using Rows = PrefetchFeed::Rows;
constexpr std::int64_t kStoredRows = 4096;  // of stored pooled taps, evaluated at a time

double seconds_since(SteadyClock::time_point start) { return std::chrono::duration<double>(SteadyClock::now() - start).count(); }

/// Ends a retraining early; becomes the outcome.
struct Ended {
  Outcome outcome;
  std::string error;
};

/// The text, if the exception at hand says that memory ran out; anything else is thrown on. Call it in a catch block.
std::string memory_text_or_rethrow() {
  try {
    throw;
  } catch (const c10::Error& error) {
    if (!compat::is_out_of_memory(error)) throw;
    return compat::message_of(error);
  } catch (const std::bad_alloc&) {
    return "the allocation failed";
  }
}

NamedTensors copies(const NamedTensors& tensors) {
  NamedTensors copied;
  for (const auto& [name, tensor] : tensors) copied.emplace_back(name, tensor.detach().clone());
  return copied;
}

void restore(const NamedTensors& to, const NamedTensors& from) {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < to.size(); ++i) to[i].second.copy_(from[i].second);
}

std::int64_t count_of(const NamedTensors& tensors) {
  std::int64_t sum = 0;
  for (const auto& [name, tensor] : tensors) sum += tensor.numel();
  return sum;
}

/// The checkpoint's tensors behind a prefix, in the order of `like`. Throws ModelError unless all are there.
NamedTensors part_of(const Checkpoint& checkpoint, const std::string& prefix, const NamedTensors& like) {
  NamedTensors given;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    if (name.starts_with(prefix)) given.emplace_back(name.substr(prefix.size()), tensor);
  }
  return matching_state("checkpoint", like, given);
}

/// What a checkpoint must agree in. Not in the number of processes, nor in what came to the options with it, as long as that has its default.
std::string binding_of(const RetrainingJob& job) {
  nlohmann::json options = job.options.to_json();
  options.erase("processes");
  if (job.options.batch_statistics == BatchStatistics::synchronised) options.erase("batch_statistics");
  return nlohmann::json{{"architecture", canonical_text(job.architecture)},
                        {"options", options},
                        {"seed", job.seed},
                        {"dataset_digest", job.dataset_digest}}
      .dump();
}

class Retraining {
 public:
  Retraining(const RetrainingJob& job, const RetrainContext& context, c10::Device device)
      : job_(job),
        options_(job.options),
        context_(context),
        device_(device),
        inputs_(job, at::TensorOptions().device(device).dtype(at::kFloat)),
        model_(job.architecture, job.options, inputs_.spec().classes, inputs_.take_modalities(), job.seed,
               at::TensorOptions().device(device).dtype(at::kFloat)),
        checkpoints_(job.folder, binding_of(job)),
        rows_(inputs_.rows("train")),
        stored_(options_.head == HeadKind::linear || inputs_.store_tokens(model_.times())),
        micro_(std::min<std::int64_t>(options_.batch, rows_)) {
    limit_rows();
  }

  RetrainingScore run() {
    const auto start = SteadyClock::now();
    best_ = copies(model_.tensors());
    if (rank() == 0 && is_temporal(options_.head) && !stored_ && (options_.fusion_epochs > 0 || options_.finetune == Finetune::none)) {
      logger("train")->info("retraining {} runs its backbones in every epoch; as long as they do not change, features made with fusion-data "
                            "extract --keep time would stand for them", job_.retraining.value);
    }
    resume();
    check_agreement();
    const double before = train_s_;
    for (int epoch = static_cast<int>(epochs_.size()) + 1; epoch <= options_.total_epochs(); ++epoch) {
      check_hand_back();
      run_epoch(epoch);
      train_s_ = before + seconds_since(start);
      if (rank() == 0) save(epoch);
      if (context_.on_epoch) context_.on_epoch(epochs_.back());
    }
    restore(model_.tensors(), best_);
    return finish(before + seconds_since(start));
  }

 private:
  int rank() const { return context_.group ? context_.group->rank() : 0; }
  int ranks() const { return context_.group ? context_.group->ranks() : 1; }
  /// Of all ranks' batches, as the options say.
  const RankGroup* statistics() const { return options_.batch_statistics == BatchStatistics::synchronised ? context_.group : nullptr; }
  void limit_rows() {
    if (context_.rows_at_once > 0) micro_ = std::min(micro_, context_.rows_at_once);
  }
  int phase_of(int epoch) const { return epoch <= options_.fusion_epochs ? 1 : 2; }
  bool trains_backbones(int phase) const { return phase == 2 && options_.finetune == Finetune::all; }
  bool reads_inputs(int phase) const { return !stored_ || trains_backbones(phase); }
  bool needs_variance(int phase) const { return options_.batchnorm || trains_backbones(phase); }
  std::int64_t step_rows() const { return static_cast<std::int64_t>(options_.batch) * options_.accumulate; }
  /// Rows that an epoch trains on: a step of a single row has no variance.
  std::int64_t used_rows(int phase) const { return needs_variance(phase) && rows_ % step_rows() == 1 ? rows_ - 1 : rows_; }
  std::int64_t steps(int phase) const { return (used_rows(phase) + step_rows() - 1) / step_rows(); }

  void begin_phase(int phase) {
    if (phase_ == phase) return;
    if (phase_ != 0) restore(model_.tensors(), best_);
    phase_ = phase;
    step_.emplace(model_, job_.seed, trains_backbones(phase));
    schedule_.emplace(options_, static_cast<double>(used_rows(phase)) / static_cast<double>(step_rows()));
  }

  void resume() {
    const std::optional<Checkpoint> found = checkpoints_.newest();
    if (!found) return;
    JsonProblems problems;
    JsonReader state(found->state, "checkpoint", problems);
    for (JsonReader& epoch : state.list("epochs", true)) epochs_.push_back(RetrainingEpoch::read(epoch));
    best_epoch_ = static_cast<int>(state.integer("best_epoch", 0, INT32_MAX));
    best_score_ = state.number("best_score", 0, 1);
    train_s_ = state.number("train_s", 0, 1e12);
    micro_ = state.integer("batch", 1, INT32_MAX);
    limit_rows();
    problems.throw_if_any();
    restore(model_.tensors(), part_of(*found, "model.", model_.tensors()));
    best_ = part_of(*found, "best.", model_.tensors());
    for (auto& [name, tensor] : best_) tensor = tensor.to(device_);
    begin_phase(phase_of(found->epoch));
    step_->load_state(part_of(*found, "optimiser.", step_->state()));
    for (const RetrainingEpoch& epoch : epochs_) {
      if (epoch.phase != phase_) continue;
      for (std::int64_t i = 0; i < steps(phase_); ++i) schedule_->next();
      schedule_->end_epoch(epoch.dev_loss);
    }
    last_loss_ = epochs_.back().train_loss;
    if (context_.on_epoch) context_.on_epoch(epochs_.back());
  }

  /// All ranks must stand behind the same epoch: they read the same folder.
  void check_agreement() const {
    if (!context_.group) return;
    const auto own = static_cast<double>(epochs_.size());
    const double mean = context_.group->sum(own) / ranks(), spread = context_.group->sum(std::abs(own - mean));
    if (spread == 0) return;
    throw Ended{Outcome::failed, "the ranks found different checkpoints in " + job_.folder + "; all of them must see the same folder"};
  }

  void save(int epoch) const {
    Checkpoint checkpoint;
    checkpoint.epoch = epoch;
    checkpoint.state = {{"best_epoch", best_epoch_}, {"best_score", best_score_}, {"train_s", train_s_}, {"batch", micro_},
                        {"epochs", nlohmann::json::array()}};
    for (const RetrainingEpoch& done : epochs_) checkpoint.state["epochs"].push_back(done.to_json());
    const auto add = [&](const std::string& prefix, const NamedTensors& tensors) {
      for (const auto& [name, tensor] : tensors) checkpoint.tensors.emplace_back(prefix + name, tensor);
    };
    add("model.", model_.tensors());
    add("best.", best_);
    add("optimiser.", step_->state());
    checkpoints_.write(checkpoint);
  }

  void run_epoch(int epoch) {
    begin_phase(phase_of(epoch));
    epoch_ = epoch;
    started_ = SteadyClock::now();
    done_rows_ = 0;
    loss_sum_ = 0;
    trained_rows_ = 0;
    const EpochOrder order = epoch_order(rows_, true, job_.seed, epoch - 1);
    while (done_rows_ < rows_) {
      try {
        train_rest(*order);
      } catch (const Error&) {
        throw;
      } catch (const std::exception&) {
        halve(memory_text_or_rethrow());
      }
    }
    average_statistics();
    RetrainingEpoch report;
    report.epoch = epoch;
    report.phase = phase_;
    report.train_loss = loss_sum_ / static_cast<double>(std::max<std::int64_t>(1, trained_rows_));
    report.learning_rate = rate_;
    report.rows_per_s = static_cast<double>(rows_) / std::max(1e-9, seconds_since(started_));
    const SplitEvaluation dev = evaluate("dev", reads_inputs(phase_), &report.dev_loss);
    report.dev_score = dev.score(options_.metric);
    report.seconds = seconds_since(started_);
    schedule_->end_epoch(report.dev_loss);
    epochs_.push_back(report);
    if (report.dev_score <= best_score_) return;
    best_score_ = report.dev_score;
    best_epoch_ = epoch;
    best_ = copies(model_.tensors());
  }

  /// Where each rank has running statistics of its own rows: their mean, with which all of them go on.
  void average_statistics() {
    if (!context_.group || statistics() != nullptr) return;
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : model_.buffers()) {
      if (!tensor.is_floating_point()) continue;
      at::Tensor sum = tensor.to(at::kDouble).contiguous();
      context_.group->sum(sum);
      tensor.copy_(sum.div_(ranks()));
    }
  }

  /// From `done_rows_` to the end of the epoch, step by step; `done_rows_` is where the last whole step ended.
  void train_rest(const std::vector<std::uint32_t>& order) {
    const StepCut cut{micro_, rank(), ranks(), needs_variance(phase_)};
    std::vector<std::vector<BatchShare>> of_steps;
    std::vector<Rows> all;
    for (std::int64_t begin = done_rows_; begin < rows_; begin += step_rows()) {
      of_steps.push_back(step_shares(begin, std::min(rows_, begin + step_rows()), cut));
      for (const BatchShare& share : of_steps.back()) all.emplace_back(order.begin() + share.begin, order.begin() + share.end);
    }
    const bool from_inputs = reads_inputs(phase_);
    PrefetchFeed feed(std::move(all), [&](const Rows& rows) { return inputs_.batch("train", rows, from_inputs); });
    for (const std::vector<BatchShare>& shares : of_steps) {
      const std::int64_t end = std::min(rows_, done_rows_ + step_rows());
      if (!shares.empty()) train_step(shares, feed);
      done_rows_ = end;
      tell(false);
    }
  }

  void train_step(const std::vector<BatchShare>& shares, PrefetchFeed& feed) {
    std::int64_t of_rows = 0;
    for (const BatchShare& share : shares) of_rows += share.of_rows;
    step_->clear_gradients();
    double loss_sum = 0;
    for (const BatchShare& share : shares) {
      check_stop();
      const std::optional<RetrainBatch> batch = feed.next();
      const double weight = share.weight(ranks());
      const double loss = step_->accumulate(*batch, weight / static_cast<double>(of_rows), (epoch_ - 1) * rows_ + share.begin,
                                            share.split ? statistics() : nullptr);
      if (!context_.group) note_loss(loss);
      loss_sum += loss * weight;
    }
    if (context_.group) {
      loss_sum = step_->add_up(*context_.group, loss_sum);
      note_loss(loss_sum / static_cast<double>(of_rows));
    }
    if (!scheduled_) rate_ = schedule_->next();
    scheduled_ = true;  // stays so if memory runs out below
    step_->move(rate_);
    scheduled_ = false;
    loss_sum_ += loss_sum;
    trained_rows_ += of_rows;
  }

  void note_loss(double loss) {
    if (!std::isfinite(loss)) fail_of_loss(loss);
    last_loss_ = loss;
  }

  void check_stop() const {
    if (!context_.cancel.stop_requested()) return;
    throw Ended{Outcome::cancelled,
                "the retraining was cancelled in epoch " + std::to_string(epoch_) + " of " + std::to_string(options_.total_epochs())};
  }

  void check_hand_back() const {
    check_stop();
    const bool asked = context_.hand_back.stop_requested();
    if (context_.group ? context_.group->sum(asked ? 1.0 : 0.0) == 0 : !asked) return;
    throw Ended{Outcome::preempted, "the retraining was handed back; it goes on behind epoch " + std::to_string(epochs_.size()) + " of " +
                                        std::to_string(options_.total_epochs())};
  }

  [[noreturn]] void fail_of_loss(double loss) const {
    throw Ended{Outcome::failed,
                "the training loss became " + std::to_string(loss) + " in epoch " + std::to_string(epoch_) +
                    (last_loss_ ? "; the last finite loss was " + std::to_string(*last_loss_) : "; it was never finite") +
                    "; try a smaller eta_max, or clip_norm"};
  }

  [[noreturn]] void fail_of_scores(const std::string& split) const {
    throw Ended{Outcome::failed, "the logits of split " + split + " are not all finite after epoch " + std::to_string(epoch_) +
                                     (last_loss_ ? "; the last finite loss was " + std::to_string(*last_loss_) : "") +
                                     "; try a smaller eta_max, or clip_norm"};
  }

  /// Where memory ran out: half as many rows at once, as long as that is possible.
  void halve(const std::string& text) {
    const std::int64_t smallest = phase_ != 0 && options_.batchnorm ? 2 : 1;
    step_->clear_gradients();
    if (context_.group || micro_ / 2 < smallest) {
      throw Ended{Outcome::oom, "memory ran out on " + device_.str() + " with " + std::to_string(micro_) + " rows at once, in epoch " +
                                    std::to_string(epoch_) + ": " + text};
    }
    micro_ /= 2;
  }

  void tell(bool always) {
    if (!context_.on_progress || (!always && seconds_since(told_) < 0.2)) return;
    told_ = SteadyClock::now();
    RetrainingProgress progress{epoch_, options_.total_epochs(), done_rows_, rows_};
    progress.rows_per_s = static_cast<double>(done_rows_) / std::max(1e-9, seconds_since(started_));
    const auto left = static_cast<double>((options_.total_epochs() - epoch_) * rows_ + rows_ - done_rows_);
    progress.eta_s = progress.rows_per_s > 0 ? left / progress.rows_per_s : 0;
    context_.on_progress(progress);
  }

  /// Scores and, in `loss`, the mean of the training's loss.
  SplitEvaluation evaluate(const std::string& split, bool from_inputs, double* loss = nullptr) {
    for (;;) {
      try {
        return evaluate_once(split, from_inputs, loss);
      } catch (const Error&) {
        throw;
      } catch (const std::exception&) {
        halve(memory_text_or_rethrow());
      }
    }
  }

  SplitEvaluation evaluate_once(const std::string& split, bool from_inputs, double* loss) const {
    const std::int64_t rows = inputs_.rows(split), at_once = from_inputs || model_.tokens() > 0 ? micro_ : kStoredRows;
    std::vector<Rows> batches;
    for (std::int64_t begin = rank() * at_once; begin < rows; begin += ranks() * at_once) {
      Rows& batch = batches.emplace_back();
      for (std::int64_t row = begin; row < std::min(rows, begin + at_once); ++row) batch.push_back(row);
    }
    PrefetchFeed feed(std::move(batches), [&](const Rows& of) { return inputs_.batch(split, of, from_inputs); });
    SplitEvaluation evaluation(inputs_.spec().classes);
    double sum = 0;
    while (const std::optional<RetrainBatch> batch = feed.next()) {
      check_stop();
      const ModelOutput output = step_->evaluate(*batch);
      const at::Tensor scores = output.scores(options_.multitask);
      if (!at::isfinite(scores).all().item<bool>()) fail_of_scores(split);
      evaluation.add(scores, batch->labels);
      sum += output.loss(batch->labels, options_.multitask).item<double>() * static_cast<double>(batch->rows);
    }
    if (context_.group) add_up(evaluation, sum);
    if (loss) *loss = sum / static_cast<double>(rows);
    return evaluation;
  }

  /// Makes of this rank's part of a split the whole.
  void add_up(SplitEvaluation& evaluation, double& loss_sum) const {
    std::vector<double> sums = evaluation.sums();
    sums.push_back(loss_sum);
    at::Tensor all = at::from_blob(sums.data(), {static_cast<std::int64_t>(sums.size())}, at::TensorOptions().dtype(at::kDouble));
    context_.group->sum(all);
    loss_sum = sums.back();
    sums.pop_back();
    evaluation.set_sums(sums);
  }

  RetrainingScore finish(double train_s) {
    RetrainingScore score;
    score.dev_score = best_score_;
    score.best_epoch = best_epoch_;
    score.train_loss = epochs_.back().train_loss;
    score.train_s = train_s;
    score.parameters = count_of(model_.parameters());
    const bool all = options_.finetune == Finetune::all && options_.epochs > 0;
    score.trained_parameters = all ? score.parameters : count_of(model_.fusion_parameters());
    const bool from_inputs = reads_inputs(2);
    score.evaluation["dev"] = evaluate("dev", from_inputs).to_json(inputs_.spec().class_names);
    if (inputs_.has("test")) {
      const SplitEvaluation test = evaluate("test", from_inputs);
      score.test_score = test.score(options_.metric);
      score.evaluation["test"] = test.to_json(inputs_.spec().class_names);
    }
    score.batch = static_cast<int>(micro_);
    if (rank() != 0) return score;
    const Rows one{0};
    const RetrainBatch row = inputs_.batch("dev", one, model_.has_backbones());
    score.evaluation.update(cost_of_one_row([&] { (void)step_->evaluate(row).fusion.sum().item<float>(); }, device_.str()));
    score.artifacts = write_artifacts(model_, job_, model_document(job_, inputs_, score, epochs_), context_);
    return score;
  }

  const RetrainingJob& job_;
  const RetrainingOptions& options_;
  const RetrainContext& context_;
  const c10::Device device_;
  RetrainInputs inputs_;
  RetrainedModel model_;
  CheckpointFolder checkpoints_;
  const std::int64_t rows_;  ///< of the train split
  const bool stored_;        ///< features hold all that the head reads of backbones that do not change
  std::int64_t micro_;       ///< rows at once

  int phase_ = 0;
  std::optional<RetrainStep> step_;
  std::optional<RateSchedules> schedule_;
  std::vector<RetrainingEpoch> epochs_;  ///< that are done
  NamedTensors best_;
  int best_epoch_ = 0;
  double best_score_ = 0, train_s_ = 0;

  int epoch_ = 0;  ///< the one at hand, and what is known of it
  std::int64_t done_rows_ = 0, trained_rows_ = 0;
  double loss_sum_ = 0, rate_ = 0;
  bool scheduled_ = false;
  std::optional<double> last_loss_;
  SteadyClock::time_point started_, told_;
};

}  // namespace

RetrainingOutcome retrain(const RetrainingJob& job, const RetrainContext& context) {
  const c10::Device device = device_from_text(context.device);
  prepare_training_thread();
  RetrainingOutcome outcome;
  const auto end_with = [&](Outcome how, std::string error) {
    outcome.outcome = how;
    outcome.error = std::move(error);
  };
  try {
    outcome.score = Retraining(job, context, device).run();
  } catch (const Ended& ended) {
    end_with(ended.outcome, ended.error);
  } catch (const RankError& error) {
    end_with(Outcome::preempted, error.what());
  } catch (const c10::Error& error) {
    const bool memory = compat::is_out_of_memory(error);
    end_with(memory ? Outcome::oom : Outcome::failed,
             (memory ? "memory ran out on " : "retraining failed on ") + device.str() + ": " + compat::message_of(error));
  } catch (const std::bad_alloc&) {
    end_with(Outcome::oom, "memory ran out on " + device.str());
  } catch (const std::exception& error) {
    end_with(Outcome::failed, error.what());
  }
  outcome.retraining = job.retraining;
  outcome.attempt = job.attempt;
  outcome.device = device.str();
  outcome.code_version = kCodeVersion;
  outcome.torch_version = compat::kTorchVersion;
  return outcome;
}

}  // namespace fusion
