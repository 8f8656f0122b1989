#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "model/lenet.h"
#include "workers/data/dataset.h"

namespace fusion {

/// How a LeNet is trained by itself. The defaults suit AV-MNIST and the toy set.
struct BackboneTraining {
  int epochs = 6;
  int batch = 64;
  double learning_rate = 0.01;  ///< the peak of the one-cycle schedule
  double weight_decay = 1e-4;   ///< coupled L2
  std::int64_t channels = 3;    ///< of the first block
  std::uint64_t seed = 0;       ///< initial weights and order of the rows
};

struct BackboneResult {
  double dev_accuracy = 0;   ///< of the best epoch, whose weights are kept
  double test_accuracy = -1; ///< of the same weights; -1 without a test split
  int best_epoch = 0;        ///< 1-based
  bool reused = false;       ///< the file was there and up to date
};

/// The LeNet that a modality's rows want: an image [C, H, W] (or [H, W]) of at least 64 pixels gets 5 blocks and the tap 0 behind the
/// pooling (the reference's audio network), 32 to 63 four blocks, 16 to 31 three, less two. Throws ConfigError for rows that are no
/// image, saying what to do instead.
LeNetOptions lenet_for(const ModalityManifest& modality, std::int64_t classes, std::int64_t channels);

/// The learning rate of step `step` (from 0) of `steps`: a cosine from peak / 25 up to the peak over the first 30 %, then a cosine
/// down to peak / 250,000. Smith and Topin, "Super-convergence", 2019, in the form of PyTorch's OneCycleLR.
double one_cycle(double peak, std::int64_t step, std::int64_t steps);

/// What a training tells while it runs: rows seen since the last call, and after an epoch its dev accuracy (else -1). Called from
/// the training's thread.
using TrainingObserver = std::function<void(std::int64_t rows, double dev_accuracy)>;

/// Trains a modality's backbone on the train split in shuffled batches, with batch normalisation in training mode; judges each epoch on
/// the dev split in evaluation mode and writes the weights of the best one to `file`, atomically, with metadata (docs/data.md).
///
/// If `file` was made by the same options from the same dataset it is kept, unless `force`. Differs from the reference, which
/// neither shuffles nor ever leaves training mode and keeps the last epoch. One thread; trainings of several modalities may run
/// at once. Throws ConfigError, ModelError or DataError.
BackboneResult train_backbone(const Dataset& dataset, std::size_t modality, const BackboneTraining& training,
                              const std::filesystem::path& file, bool force, const TrainingObserver& observer = {});

}  // namespace fusion
