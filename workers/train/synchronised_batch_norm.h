#pragma once

#include "workers/train/rank_group.h"

namespace fusion {

/// While it lives, every batch normalisation that this thread runs in training mode takes mean and variance of all ranks' rows: those of our own modules
/// and those inside TorchScript networks alike, as LibTorch's operator itself is replaced. Forward and backward pass send one message each.
///
///     mean, var over the rows and places of all ranks;   y = (x - mean) / sqrt(var + eps) * weight + bias
///     dx = (g - (sum g + xn sum (g xn)) / n) / sqrt(var + eps),   g = dy weight,   xn = (x - mean) / sqrt(var + eps),   sums over all ranks
/// The running variance takes var n / (n - 1), as in LibTorch. Sums between ranks are of doubles; the result is that of one process with all rows, but
/// for rounding. Gradients of weight and bias are of this rank's rows. The backward pass may run after it is gone, while the group lives.
/// Instance normalisation is left alone.
class SynchronisedBatchNorm {
 public:
  /// nullptr: changes nothing. All ranks must run the same normalisations in the same order, with at least one row each.
  explicit SynchronisedBatchNorm(const RankGroup* group);
  ~SynchronisedBatchNorm();
  SynchronisedBatchNorm(const SynchronisedBatchNorm&) = delete;
  SynchronisedBatchNorm& operator=(const SynchronisedBatchNorm&) = delete;

 private:
  const RankGroup* before_;
};

}  // namespace fusion
