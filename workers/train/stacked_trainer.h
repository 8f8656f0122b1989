#pragma once

#include <vector>

#include "workers/train/stacked_backend.h"
#include "workers/train/trainer.h"
#include "workers/train/trial_progress.h"

namespace fusion {

/// What tests set otherwise.
struct StackedSettings {
  /// Of the device's memory for features; below 0: half of what is free, and on a CPU, which reads them where they are, no limit.
  std::int64_t feature_bytes = -1;
  std::int64_t tile_bytes = 64 << 20;  ///< of a tile of features that are streamed
};

/// The engine called "stacked": all trials of a pack take their steps together, on a GPU or on the CPU (docs/trainer-stacked.md).
///
/// A step is some dozen kernels over tables of all trials (workers/train/stacked_plan.h), so what a step costs to begin is paid once for
/// the pack. Trials may have different lengths, and be at different epochs (some joined later): each reads the rows of its own epoch. What a
/// trial computes does not depend on the others: its memory is its own, and each of its sums is taken in one order, so its figures are
/// the same bits alone, in any pack, in any order, on one device. Features lie on the device as they are stored; where they do not
/// fit they are streamed in tiles, to the same bits.
///
/// A trial for which the device has no memory beside the others waits until some have ended, and the pack does not grow past what fitted; one
/// that does not fit alone ends `oom`. `cancel` and `prune` are looked at every 32 steps at least. With weight sharing the trials are
/// trained one after the other. Knows every operation and option of the study. T is float; double is for tests. Throws nothing but what
/// the callbacks do.
template <typename T>
void train_stacked(std::vector<PackTrial> trials, const TrainingOptions& options, const TrainingData& data, const PackContext& context,
                   stacked::Backend<T>& backend, const StepObserver& on_step = {}, const StackedSettings& settings = {});

}  // namespace fusion
