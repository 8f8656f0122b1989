#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/backbone.h"

namespace fusion {

/// A user's network as TorchScript, in evaluation mode on one device.
///
/// Its `forward(x)` may return
///   a dict of named tensors   the taps under their names in the dict's order; the key "logits", if there, the class scores
///   a tuple, a list, a tensor taps called tap0, tap1, ...; no logits
/// Every tensor starts with the batch; whatever stands behind the channels is averaged (pool_tap). Half-precision outputs become
/// float32.
class ScriptBackbone final : public Backbone {
 public:
  /// Loads and runs it once on two rows of zeros. Throws ModelError naming the file: not a TorchScript archive, its program failed,
  /// or it returned something else.
  ScriptBackbone(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape, c10::Device device);
  ~ScriptBackbone() override;

  std::string kind() const override { return "torchscript"; }
  const std::vector<TapSpec>& taps() const override { return taps_; }
  std::int64_t classes() const override { return classes_; }
  BackboneOutput forward(const at::Tensor& x) const override;
  const std::string& digest() const override { return digest_; }

 private:
  struct Program;
  std::unique_ptr<Program> program_;  ///< keeps the JIT's headers out of this one
  std::string file_;
  std::string digest_;
  std::vector<TapSpec> taps_;
  std::int64_t classes_ = 0;
};

}  // namespace fusion
