#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "model/adam.h"
#include "model/dropout.h"
#include "model/fusion_network.h"
#include "model/torch_compat.h"
#include "space/trial.h"
#include "workers/train/epoch_order.h"
#include "workers/train/schedule.h"
#include "workers/train/training_data.h"

namespace fusion::test {

/// A training by LibTorch's autograd in float or double, written as plainly as can be: what every engine's steps are held to.
class Oracle {
 public:
  Oracle(const TrialJob& job, const TrainingOptions& options, const TrainingData& data, std::uint64_t order_seed, at::ScalarType type)
      : job_(job),
        options_(options),
        data_(data),
        order_seed_(order_seed),
        type_(type),
        rows_(rows_per_epoch(options, data.train)),
        network_(job.architecture, tap_widths(data.train),
                 FusionOptions{options.width, data.classes, options.batchnorm, options.alphas}, job.seed,
                 at::TensorOptions().dtype(type)),
        adam_(network_.parameters().tensors(), AdamOptions{.weight_decay = options.weight_decay}),
        schedule_(options, rows_) {}

  /// The mean losses of the next epoch's steps, at most `most` of them.
  std::vector<double> epoch(std::int64_t most = 1 << 30) {
    std::vector<double> losses;
    const EpochOrder order = epoch_order(data_.train.rows, options_.shuffle, order_seed_, epoch_);
    for (std::int64_t begin = 0; begin < rows_ && static_cast<std::int64_t>(losses.size()) < most; begin += options_.batch) {
      const std::int64_t count = std::min<std::int64_t>(options_.batch, rows_ - begin);
      losses.push_back(step(std::vector<std::int64_t>(order->begin() + begin, order->begin() + begin + count), epoch_ * rows_ + begin));
    }
    ++epoch_;
    return losses;
  }
  const FusionNetwork& network() const { return network_; }

 private:
  double step(std::vector<std::int64_t> order, std::int64_t seen) {
    const auto count = static_cast<std::int64_t>(order.size());
    const at::Tensor index = at::from_blob(order.data(), {count}, at::TensorOptions().dtype(at::kLong));
    std::vector<std::vector<at::Tensor>> taps;
    for (const auto& of_modality : data_.train.taps) {
      auto& gathered = taps.emplace_back();
      for (const at::Tensor& tap : of_modality) gathered.push_back(at::index_select(tap, 0, index).to(type_));
    }
    std::vector<at::Tensor> joined, masks;
    for (std::size_t i = 0; i < job_.architecture.steps.size(); ++i) {
      joined.push_back(network_.join(i, taps));
      if (options_.dropout == 0) continue;
      at::Tensor mask = at::empty({count, options_.width}, at::TensorOptions().dtype(at::kFloat));
      fill_dropout_mask(mask.data_ptr<float>(), mask.numel(), seen * options_.width, options_.dropout, job_.seed,
                        static_cast<std::uint32_t>(i));
      masks.push_back(mask.to(type_));
    }
    adam_.clear_gradients();
    const at::Tensor loss =
        at::cross_entropy_loss(network_.forward(joined, masks, true), at::index_select(data_.train.labels, 0, index));
    loss.backward();
    adam_.step(schedule_.next());
    return loss.item<double>();
  }

  const TrialJob job_;
  const TrainingOptions options_;
  const TrainingData data_;
  const std::uint64_t order_seed_;
  const at::ScalarType type_;
  const std::int64_t rows_;
  FusionNetwork network_;
  Adam adam_;
  CosineSchedule schedule_;
  int epoch_ = 0;
};

}  // namespace fusion::test
