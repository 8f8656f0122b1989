#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/staged_backbone.h"

namespace torch::jit {
struct Module;
}

namespace fusion {

/// A user's TorchScript network, to be trained along. `forward(x)` returns taps as ScriptBackbone (model/script_backbone.h) says; that is
/// enough for the heads that let the maps pass unchanged.
///
/// To be run stage by stage (head mmtm) it has besides
///     stages() -> List[str]                     names of the taps, in order
///     stage(i: int, x: Tensor) -> Tensor        map of tap i from the one before; stage 0 takes the input. The mean of the map is the tap
///     classify(x: Tensor) -> Tensor             optional: class scores from the last map
/// and the pooled maps of the stages are the taps that `forward` returns, in this order (checked on zeros when it is opened).
///
/// Programs run without the graph optimiser, which would change the arithmetic between the first runs and later ones: a training that is
/// resumed must give the same bits.
class StagedScript final : public StagedBackbone {
 public:
  /// Loads it and runs it once on two rows of zeros. Throws ModelError naming the file.
  StagedScript(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape, c10::Device device);
  ~StagedScript() override;

  std::string kind() const override { return "torchscript"; }
  nlohmann::json describe() const override;
  const std::vector<TapSpec>& taps() const override { return taps_; }
  std::int64_t classes() const override { return classes_; }
  const std::string& digest() const override { return digest_; }
  BackboneMaps forward(const at::Tensor& x, bool training) const override;
  std::string why_not_staged() const override { return why_not_staged_; }
  at::Tensor stage(std::size_t i, const at::Tensor& before, bool training) const override;
  at::Tensor classify(const at::Tensor& last, bool training) const override;
  NamedTensors parameters() const override;
  NamedTensors buffers() const override;

  /// The program with its weights as they are now, in evaluation mode: to export it.
  torch::jit::Module& module() const;

 private:
  struct Program;
  void set_mode(bool training) const;
  void find_stages(const at::Tensor& zeros);

  std::unique_ptr<Program> program_;
  std::string file_;
  std::string digest_;
  std::vector<TapSpec> taps_;
  std::int64_t classes_ = 0;
  std::string why_not_staged_;
  bool has_classifier_ = false;
};

}  // namespace fusion
