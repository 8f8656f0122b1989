#pragma once

#include <cstdint>

#include "model/fusion_network.h"
#include "space/training_options.h"
#include "workers/data/features.h"

namespace fusion {

/// The features that trials are trained and scored on. The splits must outlive the training.
struct TrainingData {
  std::int64_t classes = 0;
  const FeatureSplit& train;
  const FeatureSplit& dev;
  const FeatureSplit* test = nullptr;  ///< for TrainingOptions::evaluate_test
};

/// Of a whole feature set; train and dev must be there (DataError).
TrainingData training_data(const FeatureSet& features);

/// Throws ModelError with every problem of the options and of the features that these options need.
void check_training(const TrainingOptions& options, const TrainingData& data);

TapWidths tap_widths(const FeatureSplit& split);

/// Rows of an epoch that are trained on: all, but for a last batch of a single row where batch normalisation needs its variance.
std::int64_t rows_per_epoch(const TrainingOptions& options, const FeatureSplit& train);

/// Mean over the rows of the cross entropies of the backbones' own stored logits, summed over the backbones: the constant that
/// `multitask` adds to the loss.
double stored_logits_loss(const FeatureSplit& split);

}  // namespace fusion
