#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "model/retrained_model.h"

namespace fusion {

/// Writes a retrained model as one TorchScript file that runs wherever `torch.jit.load` does (PyTorch 1.13 and 2.x), without our code, atomically.
///
///     forward(inputs: Dict[str, Tensor]) -> Tensor             scores [B, classes], as ModelOutput::scores: what a prediction is the argmax of
///     parts(inputs: Dict[str, Tensor]) -> Dict[str, Tensor]    "fusion", and "backbone.<modality>" for each backbone that has logits
///
/// Inputs are keyed by the modalities' names. While the attribute `normalise` is True they are rows as the dataset's arrays hold them, of any
/// type and any shape with as many numbers, and (x - mean) / std is applied inside; set it to False for rows that are normalised already.
/// Backbones are inside: LeNets as TorchScript of our own, TorchScript networks as they are, with the weights they have now. It computes in
/// evaluation mode, whatever `train()` says of it. Its parameters have gradients, and the names of `RetrainedModel::tensors` (a modality
/// whose name is none in Python is called modality<number>).
///
/// `document` is what architecture.json says of the model (workers/train/retrain_artifacts.h). Its `class_names` and its modalities' `mean`
/// and `std` are used; without these `normalise` is False and means nothing. All of it stands in the extra file metadata.json and in the
/// attribute `metadata` (str); `classes` and `modalities` are List[str].
///
/// Fits RetrainContext::export_model. Throws ModelError: no backbones, or a TorchScript network that cannot be put inside.
void export_model(const RetrainedModel& model, const nlohmann::json& document, const std::filesystem::path& file);

}  // namespace fusion
