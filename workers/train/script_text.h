#pragma once

#include <string>
#include <vector>

#include "model/lenet.h"
#include "model/mmtm.h"
#include "model/retrained_model.h"

namespace fusion {

/// TorchScript texts of our layers, one canonical text per layer, as methods of a module whose tensors have the layer's names: what an exported
/// model (workers/train/export_model.h) consists of. Evaluation mode: no dropout, running statistics.
///
/// A dotted name "bert.transformer_blocks.0.w" is a tensor of nested modules.
std::string script_path(const std::string& root, const std::string& dotted);

/// Methods: stage<i>(x) -> map i from map i - 1 or the input; tap<i>(map) -> what tap i is the mean of; classify(last map) -> logits.
std::string lenet_text(const LeNetOptions& options);

/// Methods: hidden(joined: List[Tensor]) -> [B, R], joined[i] as FusionNetwork::join makes it; classify(hidden) -> logits.
/// `first_widths[i]`: columns of joined[i] that are the first modality's.
std::string fusion_text(const FusionNetwork& network, const std::vector<std::int64_t>& first_widths);

/// Methods: gates(maps: List[Tensor]) -> List[Tensor]; scale(gate, map) -> the map times its gate.
std::string mmtm_text(const Mmtm& module);

/// Method: forward(tokens [B, T, C]) -> logits. Throws ModelError for a head that no retraining makes (two streams, an inception block).
std::string head_text(const TemporalHead& head);

}  // namespace fusion
