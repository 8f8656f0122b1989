#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "workers/train/metrics.h"
#include "workers/train/trainer.h"

namespace fusion {

/// Sees the mean loss of every step of every trial (0-based over the whole training): for tests and measurements.
using StepObserver = std::function<void(const TrialJob&, std::int64_t step, double loss)>;

/// Adds the time it lives to a figure.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() { seconds_ += std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  double& seconds_;
  Clock::time_point start_ = Clock::now();
};

/// One trial of a pack on its way, as far as every engine that trains packs notes the same of it.
struct TrialProgress {
  PackTrial trial;
  int epochs = 0;  ///< that are finished
  std::int64_t steps = 0;
  double loss_sum = 0;  ///< of the epoch's rows so far
  double epoch_s = 0, total_s = 0;
  Score score;
  std::vector<std::int64_t> predictions;  ///< of the split that was scored last
  bool ended = false;
};

/// What becomes of the trials of a pack, whatever engine trains them (workers/train/autograd_trainer.h words it): epochs, scores, ends.
/// Everything given must outlive it.
class PackRules {
 public:
  PackRules(const TrainingOptions& options, const TrainingData& data, const PackContext& context, std::string engine, std::string device);

  std::int64_t rows() const { return rows_; }    ///< of an epoch
  std::int64_t batch() const { return batch_; }
  std::int64_t steps_per_epoch() const { return (rows_ + batch_ - 1) / batch_; }
  /// Trials to train at once, of so many that are there.
  std::size_t room(std::size_t trials) const;
  /// The bank, where weights are shared.
  WeightBank* bank() const;
  /// "in epoch 2, step 7"
  std::string place(const TrialProgress& progress) const;

  /// Notes the loss of a step, the sum over its rows; a loss that is not finite ends the trial.
  void note_loss(TrialProgress& progress, double loss) const;
  /// After an epoch, with the predictions of dev: notes the score and tells of it. True where the weights are the best so far.
  bool finish_epoch(TrialProgress& progress, double learning_rate) const;
  /// With the predictions of test.
  void note_test(TrialProgress& progress) const;
  /// Ends the trial with the score it has.
  void complete(TrialProgress& progress, Outcome outcome, std::string error) const;
  void end(TrialProgress& progress, Outcome outcome, std::string error, std::optional<Score> score = std::nullopt) const;

  /// Runs work of one trial: an error ends that trial.
  void guarded(TrialProgress& progress, const std::function<void()>& work) const;

 private:
  ConfusionMatrix confusion(const FeatureSplit& split, const TrialProgress& progress) const;

  const TrainingOptions& options_;
  const TrainingData& data_;
  const PackContext& context_;
  const std::string engine_, device_;
  const std::int64_t rows_, batch_;
  const double constant_loss_;  ///< with multitask
};

/// Checks options and features (workers/train/training_data.h) and trains; where they are wrong, every trial fails with the reason.
void run_checked(const TrainingOptions& options, const TrainingData& data, const PackContext& context, std::string engine,
                 std::string device, const std::vector<PackTrial>& trials, const std::function<void(const PackRules&)>& train);

}  // namespace fusion
