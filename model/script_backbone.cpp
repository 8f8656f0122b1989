#include "model/script_backbone.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include "base/digest.h"
#include "base/error.h"
#include "model/script_output.h"
#include "model/torch_compat.h"

namespace fusion {

struct ScriptBackbone::Program {
  torch::jit::Module module;
};

namespace {

struct NamedOutput {
  std::vector<std::string> names;
  BackboneOutput output;
};

NamedOutput pooled(ScriptOutput raw) {
  NamedOutput result;
  result.names = std::move(raw.names);
  for (const at::Tensor& map : raw.maps) result.output.taps.push_back(pool_tap(map));
  if (raw.logits.defined()) result.output.logits = pool_tap(raw.logits);
  return result;
}

NamedOutput run(torch::jit::Module& module, const at::Tensor& x, const std::string& file) {
  const at::NoGradGuard no_grad;
  c10::IValue returned;
  try {
    returned = module.forward({x});
  } catch (const std::exception& error) {
    throw ModelError(file + ": the network failed on an input of shape " + c10::str(x.sizes()) + ": " + script_message(error));
  }
  return pooled(read_script_output(returned, x.size(0), file));
}

}  // namespace

ScriptBackbone::ScriptBackbone(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape, c10::Device device)
    : program_(std::make_unique<Program>()), file_(file.string()), digest_(sha256_of_file(file)) {
  try {
    program_->module = torch::jit::load(file_, device);
    program_->module.eval();
  } catch (const std::exception& error) {
    throw ModelError(file_ + ": expected a TorchScript archive: " + script_message(error));
  }
  std::vector<std::int64_t> shape{2};
  shape.insert(shape.end(), row_shape.begin(), row_shape.end());
  const NamedOutput probe = run(program_->module, at::zeros(shape, at::TensorOptions().device(device)), file_);
  for (std::size_t i = 0; i < probe.names.size(); ++i) taps_.push_back({probe.names[i], probe.output.taps[i].size(1)});
  if (probe.output.logits.defined()) classes_ = probe.output.logits.size(1);
}

ScriptBackbone::~ScriptBackbone() = default;

BackboneOutput ScriptBackbone::forward(const at::Tensor& x) const {
  NamedOutput result = run(program_->module, x, file_);
  bool same = result.names.size() == taps_.size() && (result.output.logits.defined() ? result.output.logits.size(1) : 0) == classes_;
  for (std::size_t i = 0; same && i < taps_.size(); ++i) {
    same = result.names[i] == taps_[i].name && result.output.taps[i].size(1) == taps_[i].width;
  }
  if (!same) throw ModelError(file_ + ": the network returned other taps than for its first input");
  return std::move(result.output);
}

}  // namespace fusion
