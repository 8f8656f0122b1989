#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/retrained_model.h"
#include "space/retraining.h"
#include "workers/data/dataset.h"
#include "workers/data/features.h"

namespace fusion {

/// A batch of a split, on the CPU: inputs of the backbones, or stored taps and logits. B rows.
struct RetrainBatch {
  std::vector<at::Tensor> inputs;             ///< [m]: [B, *row shape]; empty where taps are read
  /// [m][i]: [B, width], for a temporal head [B, T, width] where the tap has time; float32, undefined where no step reads it.
  std::vector<std::vector<at::Tensor>> taps;
  std::vector<at::Tensor> logits;             ///< [m]: [B, classes]; undefined where there are none
  at::Tensor labels;                          ///< [B]
  std::int64_t rows = 0;
};

/// What a retraining reads: the features of its job and, where the manifest names them, the dataset and the backbones behind them
/// (docs/data.md). Thread-safe after construction, except `modalities`.
class RetrainInputs {
 public:
  /// Opens and verifies everything; `backbones` are opened on the device. Throws DataError, ConfigError or ModelError: the features are
  /// others than the job's, a file is missing or changed, or the head needs inputs that the manifest does not name.
  RetrainInputs(const RetrainingJob& job, const at::TensorOptions& tensors);

  const DatasetSpec& spec() const { return features_->spec(); }
  bool has(const std::string& split) const { return features_->has(split); }
  std::int64_t rows(const std::string& split) const { return features_->split(split).rows; }
  /// For the model, which takes the backbones; once.
  std::vector<ModelModality> take_modalities() { return std::move(modalities_); }
  /// Of the modalities, for documents: [{name, shape, mean, std, time_axis, taps, backbone}].
  const nlohmann::json& description() const { return description_; }

  /// Whether the tokens over time of all read taps are stored. times[m][i] is the T that a tap must have, 0 for none, as
  /// RetrainedModel::times says.
  bool store_tokens(const std::vector<std::vector<std::int64_t>>& times) const;
  /// Rows of a split, as inputs or as stored taps of the architecture: for a temporal head over time, as far as they are stored so.
  RetrainBatch batch(const std::string& split, std::span<const std::int64_t> rows, bool from_inputs) const;

 private:
  void open_backbones(const RetrainingJob& job, const nlohmann::json& manifest, const at::TensorOptions& tensors);
  void describe(const nlohmann::json& manifest);

  std::filesystem::path manifest_;
  Architecture architecture_;
  bool temporal_;  ///< the head reads tokens over time
  std::shared_ptr<const FeatureSet> features_;
  std::optional<Dataset> dataset_;
  std::vector<std::size_t> places_;  ///< [m]: the modality's place in the dataset
  std::vector<ModelModality> modalities_;
  nlohmann::json description_;
};

}  // namespace fusion
