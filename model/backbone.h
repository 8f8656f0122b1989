#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "space/dataset_spec.h"

namespace fusion {

/// What a backbone gives for a batch of B rows.
struct BackboneOutput {
  std::vector<at::Tensor> taps;  ///< [i]: [B, width of tap i]
  at::Tensor logits;             ///< [B, classes]; undefined if it has none
};

/// [B, C, ...] to [B, C]: the mean over everything behind the channels, as the reference pools a tap. [B, C] passes unchanged, [B]
/// becomes [B, 1].
at::Tensor pool_tap(const at::Tensor& feature);

/// A frozen network whose taps are fusion's inputs: evaluation mode, no gradients, always.
///
/// Not thread-safe: one instance per thread.
class Backbone {
 public:
  virtual ~Backbone() = default;

  /// "lenet" or "torchscript".
  virtual std::string kind() const = 0;
  /// Names and widths of the taps, in the order of `forward`'s.
  virtual const std::vector<TapSpec>& taps() const = 0;
  /// Width of the logits; 0 if the backbone gives none.
  virtual std::int64_t classes() const = 0;
  /// x: [B, *row shape], float32, on the backbone's device. Pooled taps and logits, float32. Throws ModelError.
  virtual BackboneOutput forward(const at::Tensor& x) const = 0;
  /// SHA-256 of the file.
  virtual const std::string& digest() const = 0;
};

/// Opens a backbone by what the file holds, whatever its name: a LeNet of ours (`.safetensors` with metadata) or a TorchScript
/// archive. `row_shape` is one input's shape without B; a TorchScript network is run once on zeros of it to learn its taps. Throws
/// ModelError or DataError with a sentence naming the file. A TorchScript file is a program: never open one from a stranger.
std::unique_ptr<Backbone> open_backbone(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape,
                                        c10::Device device = c10::Device(c10::kCPU));

}  // namespace fusion
