#include "workers/data/train_backbone.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eq.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <numeric>
#include <optional>
#include <span>

#include "base/error.h"
#include "base/random.h"
#include "base/tensor_files.h"
#include "model/adam.h"
#include "model/device.h"
#include "model/random_streams.h"
#include "model/torch_compat.h"

namespace fusion {

namespace {

constexpr std::int64_t kEvaluationBatch = 250;

/// Everything that decides the weights, as the metadata says it.
std::string training_text(const BackboneTraining& t) {
  return nlohmann::json{{"epochs", t.epochs},           {"batch", t.batch}, {"learning_rate", t.learning_rate},
                        {"weight_decay", t.weight_decay}, {"seed", t.seed},   {"optimiser", "adam one-cycle"}}
      .dump();
}

/// The figures of a file that these options made, or nullopt: no file, another origin, damaged.
std::optional<BackboneResult> up_to_date(const std::filesystem::path& file, const Dataset& dataset, const LeNetOptions& options,
                                         const BackboneTraining& training) {
  if (!std::filesystem::exists(file)) return std::nullopt;
  try {
    const LeNet network = LeNet::load(file);
    if (!(network.options() == options)) return std::nullopt;
    const auto metadata = SafetensorsFile::open(file).metadata();
    if (metadata.at("dataset_digest") != dataset.manifest().digest || metadata.at("training") != training_text(training)) {
      return std::nullopt;
    }
    return BackboneResult{std::stod(metadata.at("dev_accuracy")), std::stod(metadata.at("test_accuracy")),
                          std::stoi(metadata.at("epoch")), true};
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

/// [B, H, W] rows get their channel.
at::Tensor as_images(const at::Tensor& batch, const LeNetOptions& options) {
  return batch.view({batch.size(0), options.input_channels, options.height, options.width});
}

double accuracy(const LeNet& network, const Dataset& dataset, std::size_t modality, const std::string& split) {
  const at::NoGradGuard no_grad;
  const at::Tensor labels = dataset.labels(split);
  const std::int64_t rows = labels.size(0);
  std::int64_t hits = 0;
  for (std::int64_t begin = 0; begin < rows; begin += kEvaluationBatch) {
    const std::int64_t end = std::min(rows, begin + kEvaluationBatch);
    const at::Tensor x = as_images(dataset.batch(modality, split, begin, end), network.options());
    hits += at::argmax(network.forward(x, false).logits, 1).eq(labels.slice(0, begin, end)).sum().item<std::int64_t>();
  }
  return static_cast<double>(hits) / static_cast<double>(rows);
}

}  // namespace

LeNetOptions lenet_for(const ModalityManifest& modality, std::int64_t classes, std::int64_t channels) {
  std::vector<std::int64_t> shape = modality.shape;
  if (shape.size() == 2) shape.insert(shape.begin(), 1);
  if (shape.size() != 3 || shape[1] < 2 || shape[2] < 2) {
    throw ConfigError("modality \"" + modality.name + "\": the LeNet wants images of shape [channels, height, width], this has " +
                      nlohmann::json(modality.shape).dump() + "; use a TorchScript network of your own (fusion-data extract "
                      "--backbone " + modality.name + "=FILE.pt) or import features (fusion-data import)");
  }
  LeNetOptions options;
  options.channels = channels;
  options.classes = classes;
  options.input_channels = shape[0];
  options.height = shape[1];
  options.width = shape[2];
  const std::int64_t side = std::min(shape[1], shape[2]);
  options.blocks = side >= 64 ? 5 : side >= 32 ? 4 : side >= 16 ? 3 : 2;
  options.first_tap_after_pool = side >= 64;
  return options;
}

double one_cycle(double peak, std::int64_t step, std::int64_t steps) {
  const double start = peak / 25, end = start / 1e4;
  const double rise = std::max(1.0, 0.3 * static_cast<double>(steps) - 1), fall = std::max(1.0, static_cast<double>(steps) - 1 - rise);
  const auto cosine = [](double from, double to, double share) {
    return to + (from - to) / 2 * (1 + std::cos(std::numbers::pi * std::min(1.0, share)));
  };
  const auto at = static_cast<double>(step);
  return at <= rise ? cosine(start, peak, at / rise) : cosine(peak, end, (at - rise) / fall);
}

BackboneResult train_backbone(const Dataset& dataset, std::size_t modality, const BackboneTraining& training,
                              const std::filesystem::path& file, bool force, const TrainingObserver& observer) {
  const LeNetOptions options = lenet_for(dataset.manifest().modalities.at(modality), dataset.manifest().classes, training.channels);
  if (!force) {
    if (const auto there = up_to_date(file, dataset, options, training)) return *there;
  }
  prepare_training_thread();
  LeNet network(options, training.seed);
  AdamOptions adam_options;
  adam_options.weight_decay = training.weight_decay;
  Adam adam(network.parameters().tensors(), adam_options);

  const at::Tensor labels = dataset.labels("train");
  std::vector<std::int64_t> order(static_cast<std::size_t>(labels.size(0)));
  std::iota(order.begin(), order.end(), 0);
  // A last batch of one row has no variance to normalise with; rows beyond the last whole batch wait for the next order.
  const auto batch = std::min<std::size_t>(static_cast<std::size_t>(training.batch), order.size());
  const std::size_t batches = order.size() / batch;
  const auto steps = static_cast<std::int64_t>(batches) * training.epochs;

  BackboneResult best{-1, -1, 0, false};
  at::Tensor best_parameters, best_buffers;
  std::int64_t step = 0;
  for (int epoch = 1; epoch <= training.epochs; ++epoch) {
    Rng rng(training.seed, random_stream(StreamKind::order, static_cast<std::uint32_t>(epoch)));
    rng.shuffle(std::span(order));
    for (std::size_t b = 0; b < batches; ++b) {
      const std::span<const std::int64_t> rows = std::span(order).subspan(b * batch, batch);
      const at::Tensor x = as_images(dataset.batch(modality, "train", rows), options);
      at::Tensor targets = at::empty({static_cast<std::int64_t>(batch)}, labels.options());
      for (std::size_t i = 0; i < batch; ++i) targets.data_ptr<std::int64_t>()[i] = labels.data_ptr<std::int64_t>()[rows[i]];
      at::cross_entropy_loss(network.forward(x, true).logits, targets).backward();
      adam.step(one_cycle(training.learning_rate, step++, steps));
      adam.clear_gradients();
      if (observer) observer(static_cast<std::int64_t>(batch), -1);
    }
    const double dev = accuracy(network, dataset, modality, "dev");
    if (observer) observer(0, dev);
    if (dev > best.dev_accuracy) {
      best.dev_accuracy = dev;
      best.best_epoch = epoch;
      best_parameters = network.parameters().snapshot();
      best_buffers = network.buffers().snapshot();
    }
  }
  network.parameters().restore(best_parameters);
  network.buffers().restore(best_buffers);
  if (dataset.has("test")) best.test_accuracy = accuracy(network, dataset, modality, "test");
  network.save(file, {{"dataset_digest", dataset.manifest().digest},
                      {"modality", dataset.manifest().modalities[modality].name},
                      {"training", training_text(training)},
                      {"epoch", std::to_string(best.best_epoch)},
                      {"dev_accuracy", nlohmann::json(best.dev_accuracy).dump()},
                      {"test_accuracy", nlohmann::json(best.test_accuracy).dump()}});
  return best;
}

}  // namespace fusion
