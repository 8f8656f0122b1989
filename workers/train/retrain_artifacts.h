#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "model/retrained_model.h"
#include "space/retraining.h"
#include "workers/train/retrain.h"
#include "workers/train/retrain_inputs.h"

namespace fusion {

/// What architecture.json says of a retrained model (docs/retraining.md): structure with names, options, classes, normalisation, lineage,
/// digests, scores and, if given, epochs.
nlohmann::json model_document(const RetrainingJob& job, const RetrainInputs& inputs, const RetrainingScore& score,
                              const std::vector<RetrainingEpoch>& epochs);

/// Writes model.safetensors (the model's weights and buffers as they are), architecture.json and, if the context exports, its file, into
/// the job's folder. The bytes of model.safetensors depend on the weights and the job alone. Throws DataError.
std::vector<Artifact> write_artifacts(const RetrainedModel& model, const RetrainingJob& job, nlohmann::json document,
                                      const RetrainContext& context);

}  // namespace fusion
