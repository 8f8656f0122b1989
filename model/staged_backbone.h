#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "model/flat_tensors.h"
#include "space/dataset_spec.h"

namespace fusion {

/// What a backbone gives for a batch of B rows before anything is pooled.
struct BackboneMaps {
  std::vector<at::Tensor> maps;  ///< [i]: what tap i is the mean of, [B, C_i, ...] or [B, C_i]
  at::Tensor logits;             ///< [B, classes]; undefined if it has none
};

/// A backbone that can be trained, and run stage by stage, so that the maps can be changed on their way: what retraining needs beyond
/// model/backbone.h. Gradients flow through everything unless the caller forbids them.
///
/// Stage i makes tap i's map from stage i - 1's; stage 0 reads the input. A backbone that only runs as a whole says so in
/// `why_not_staged`. `training` means batch statistics, and dropout if it has any. Not thread-safe: one instance per thread.
class StagedBackbone {
 public:
  virtual ~StagedBackbone() = default;

  /// "lenet" or "torchscript".
  virtual std::string kind() const = 0;
  /// What rebuilds its structure, for a model's documents: {"kind": ..., "arch": ...}.
  virtual nlohmann::json describe() const = 0;
  virtual const std::vector<TapSpec>& taps() const = 0;
  virtual std::int64_t classes() const = 0;  ///< 0: it has no logits
  virtual const std::string& digest() const = 0;  ///< SHA-256 of the file it came from

  /// x: [B, *row shape]. Throws ModelError, and c10::Error from LibTorch (memory).
  virtual BackboneMaps forward(const at::Tensor& x, bool training) const = 0;

  /// A sentence naming the file and what it lacks; empty if `stage` works.
  virtual std::string why_not_staged() const { return ""; }
  virtual at::Tensor stage(std::size_t i, const at::Tensor& before, bool training) const = 0;
  /// What tap i is the mean of; usually the map itself.
  virtual at::Tensor tap_map(std::size_t, const at::Tensor& map) const { return map; }
  /// Logits from the last stage's map; undefined if it has none.
  virtual at::Tensor classify(const at::Tensor& last, bool training) const = 0;

  /// Under names of its own ("conv1.weight"); floating parameters only are trained.
  virtual NamedTensors parameters() const = 0;
  virtual NamedTensors buffers() const = 0;
  void set_trainable(bool trainable) const;
};

/// Opens a backbone by what the file holds, as `open_backbone` does. `tensors` gives device and, for a LeNet, the floating type (float where
/// it says nothing). Throws ModelError or DataError with a sentence naming the file. A TorchScript file is a program: never open one
/// from a stranger.
std::unique_ptr<StagedBackbone> open_staged_backbone(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape,
                                                     const at::TensorOptions& tensors = {});

}  // namespace fusion
