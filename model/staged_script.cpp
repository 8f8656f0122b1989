#include "model/staged_script.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

#include <functional>
#include <new>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "model/backbone.h"
#include "model/script_output.h"
#include "model/torch_compat.h"

namespace fusion {

struct StagedScript::Program {
  torch::jit::Module module;
  bool training = true;
};

namespace {

/// Runs a part of the program. An interpreter keeps of a lack of memory only the text, so it is known by that.
c10::IValue run(const std::string& file, const char* method, const at::Tensor& x, const std::function<c10::IValue()>& call) {
  const torch::jit::GraphOptimizerEnabledGuard as_written(false);
  try {
    return call();
  } catch (const std::exception& error) {
    const std::string text = script_message(error);
    if (compat::says_out_of_memory(text)) throw std::bad_alloc();
    throw ModelError(file + ": " + method + " failed on an input of shape " + c10::str(x.sizes()) + ": " + text);
  }
}

const char* const kContract = "head mmtm needs a backbone that runs stage by stage: a TorchScript module with the methods "
                              "stages() -> List[str] and stage(i: int, x: Tensor) -> Tensor, whose pooled maps are its taps in "
                              "order (docs/retraining.md has an example); or choose the head linear";

}  // namespace

StagedScript::StagedScript(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape, c10::Device device)
    : program_(std::make_unique<Program>()), file_(file.string()), digest_(sha256_of_file(file)) {
  try {
    program_->module = torch::jit::load(file_, device);
  } catch (const std::exception& error) {
    throw ModelError(file_ + ": expected a TorchScript archive: " + script_message(error));
  }
  std::vector<std::int64_t> shape{2};
  shape.insert(shape.end(), row_shape.begin(), row_shape.end());
  const at::NoGradGuard no_grad;
  const at::Tensor zeros = at::zeros(shape, at::TensorOptions().device(device));
  set_mode(false);
  const c10::IValue returned = run(file_, "forward", zeros, [&] { return program_->module.forward({zeros}); });
  const ScriptOutput probe = read_script_output(returned, 2, file_);
  for (std::size_t i = 0; i < probe.names.size(); ++i) taps_.push_back({probe.names[i], pool_tap(probe.maps[i]).size(1)});
  if (probe.logits.defined()) classes_ = pool_tap(probe.logits).size(1);
  find_stages(zeros);
}

StagedScript::~StagedScript() = default;

void StagedScript::find_stages(const at::Tensor& zeros) {
  torch::jit::Module& module = program_->module;
  has_classifier_ = module.find_method("classify").has_value();
  if (!module.find_method("stages") || !module.find_method("stage")) {
    why_not_staged_ = file_ + ": " + kContract;
    return;
  }
  try {
    const c10::IValue names = run(file_, "stages", zeros, [&] { return module.get_method("stages")({}); });
    at::Tensor map = zeros;
    for (std::size_t i = 0; i < names.toListRef().size(); ++i) {
      map = stage(i, map, false);
      const bool same = i < taps_.size() && names.toListRef()[i].toStringRef() == taps_[i].name && pool_tap(map).size(1) == taps_[i].width;
      if (!same) why_not_staged_ = file_ + ": stage " + std::to_string(i) + " is not the tap in this place that forward returns; " + kContract;
      if (!same) return;
    }
    if (names.toListRef().size() != taps_.size()) {
      why_not_staged_ = file_ + ": has " + std::to_string(names.toListRef().size()) + " stages, but forward returns " +
                        std::to_string(taps_.size()) + " taps; " + kContract;
    }
  } catch (const std::exception& error) {
    why_not_staged_ = file_ + ": " + script_message(error) + "; " + kContract;
  }
}

nlohmann::json StagedScript::describe() const {
  nlohmann::json names = nlohmann::json::array();
  for (const TapSpec& tap : taps_) names.push_back(tap.name);
  return {{"kind", "torchscript"}, {"arch", {{"taps", names}, {"classes", classes_}}}};
}

void StagedScript::set_mode(bool training) const {
  if (program_->training == training) return;
  program_->module.train(training);
  program_->training = training;
}

BackboneMaps StagedScript::forward(const at::Tensor& x, bool training) const {
  set_mode(training);
  const c10::IValue returned = run(file_, "forward", x, [&] { return program_->module.forward({x}); });
  ScriptOutput output = read_script_output(returned, x.size(0), file_);
  bool same = output.names.size() == taps_.size();
  for (std::size_t i = 0; same && i < taps_.size(); ++i) {
    const at::Tensor& map = output.maps[i];  // [B, C, ...], or [B] for one number a row
    same = output.names[i] == taps_[i].name && (map.dim() > 1 ? map.size(1) : 1) == taps_[i].width;
  }
  if (!same) throw ModelError(file_ + ": the network returned other taps than for its first input");
  return {std::move(output.maps), output.logits.defined() ? pool_tap(output.logits) : at::Tensor()};
}

at::Tensor StagedScript::stage(std::size_t i, const at::Tensor& before, bool training) const {
  set_mode(training);
  const c10::IValue returned = run(file_, "stage", before, [&] {
    return program_->module.get_method("stage")({static_cast<std::int64_t>(i), before});
  });
  if (!returned.isTensor()) throw ModelError(file_ + ": stage " + std::to_string(i) + ": expected a tensor, got " + returned.tagKind());
  return returned.toTensor().to(c10::kFloat);
}

at::Tensor StagedScript::classify(const at::Tensor& last, bool training) const {
  if (!has_classifier_) return {};
  set_mode(training);
  const c10::IValue returned = run(file_, "classify", last, [&] { return program_->module.get_method("classify")({last}); });
  if (!returned.isTensor()) throw ModelError(file_ + ": classify: expected a tensor, got " + returned.tagKind());
  return returned.toTensor().to(c10::kFloat);
}

NamedTensors StagedScript::parameters() const {
  NamedTensors all;
  for (const auto& parameter : program_->module.named_parameters()) all.emplace_back(parameter.name, parameter.value);
  return all;
}

NamedTensors StagedScript::buffers() const {
  NamedTensors all;
  for (const auto& buffer : program_->module.named_buffers()) all.emplace_back(buffer.name, buffer.value);
  return all;
}

torch::jit::Module& StagedScript::module() const {
  set_mode(false);
  return program_->module;
}

}  // namespace fusion
