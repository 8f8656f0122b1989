#pragma once

#include <vector>

#include "workers/train/trainer.h"
#include "workers/train/trial_progress.h"

namespace fusion {

/// The engine called "plain": one thread of a CPU, gradients by hand (workers/train/plain_network.h).
///
/// The trials of a pack advance together, tile by tile: some batches of features are gathered into the cache, then each trial in turn
/// trains on all of them, so features are gathered once for the pack and a trial's weights are fetched once per tile. Trials at
/// different epochs (some joined later) have tiles of their own, for every epoch has its order of rows. What a trial computes does not depend
/// on the others in any way: the same bits alone, in any pack, in any order, on one kind of processor.
///
/// Knows every operation and option of the study. `cancel` and `prune` are looked at once per tile (some hundred microseconds). With
/// weight sharing the trials are trained one after the other. T is float; double is for tests. Throws nothing but what the callbacks do.
template <typename T>
void train_plain(std::vector<PackTrial> trials, const TrainingOptions& options, const TrainingData& data, const PackContext& context,
                 const StepObserver& on_step = {});

}  // namespace fusion
