#pragma once

#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/jit/api/module.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/files.h"
#include "model/lenet.h"
#include "model/retrained_model.h"
#include "model/torch_compat.h"
#include "tests/temporary_folder.h"

namespace fusion::testing {

/// A network that can be run in stages, as TorchScript: two taps [B, 4, H, W] and [B, 6, H / 2, W / 2], three classes.
inline std::filesystem::path save_staged_script(const std::filesystem::path& file) {
  torch::jit::Module module("Net");
  module.register_attribute("training", c10::BoolType::get(), true);
  module.register_parameter("k0", at::randn({4, 2, 3, 3}).mul(0.3), false);
  module.register_parameter("k1", at::randn({6, 4, 3, 3}).mul(0.3), false);
  module.register_parameter("w", at::randn({3, 6}), false);
  module.define(R"(
def stages(self) -> List[str]:
    return ["early", "late"]
def stage(self, i: int, x: Tensor) -> Tensor:
    if i == 0:
        return torch.relu(torch.conv2d(x, self.k0, padding=1))
    return torch.max_pool2d(torch.relu(torch.conv2d(x, self.k1, padding=1)), [2, 2])
def classify(self, x: Tensor) -> Tensor:
    return torch.matmul(x.mean([2, 3]), self.w.t())
def forward(self, x: Tensor) -> Dict[str, Tensor]:
    early = self.stage(0, x)
    late = self.stage(1, early)
    return {"early": early, "late": late, "logits": self.classify(late)}
)");
  module.save(file.string());
  return file;
}

/// Every tensor gets values that tell: also those that start as 0 or 1.
inline void shake(const RetrainedModel& model) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model.tensors()) {
    if (!tensor.is_floating_point() || name.find("position.pe") != std::string::npos) continue;
    const bool variance = name.ends_with("running_var");
    tensor.copy_(variance ? at::rand(tensor.sizes()).add(0.5) : tensor.mul(0.7).add(at::randn(tensor.sizes()).mul(0.2)));
  }
}

/// "audio" a LeNet of rows [1, 16, 20] with 3 taps, "video clip" a TorchScript network of rows [2, 12, 10] with 2, three classes.
inline std::vector<ModelModality> two_modalities(const TemporaryFolder& folder) {
  LeNetOptions options;
  options.height = 16;
  options.width = 20;
  options.classes = 3;
  options.first_tap_after_pool = true;
  LeNet(options, 7).save(folder / "audio.safetensors");
  save_staged_script(folder / "video.pt");
  std::vector<ModelModality> modalities(2);
  modalities[0] = {"audio", {3, 6, 12}, {1, 16, 20}, -1, open_staged_backbone(folder / "audio.safetensors", {1, 16, 20})};
  modalities[1] = {"video clip", {4, 6}, {2, 12, 10}, -1, open_staged_backbone(folder / "video.pt", {2, 12, 10})};
  return modalities;
}

inline std::vector<at::Tensor> two_inputs(std::int64_t rows) { return {at::rand({rows, 1, 16, 20}), at::rand({rows, 2, 12, 10})}; }

}  // namespace fusion::testing
