#include "model/script_backbone.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include "base/digest.h"
#include "base/error.h"
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

/// One line, without the JIT's traceback of C++ frames.
std::string message_of(const std::exception& error) {
  if (const auto* const of_torch = dynamic_cast<const c10::Error*>(&error)) return compat::message_of(*of_torch);
  std::string text = error.what();
  text = text.substr(0, text.find("\nException raised from"));
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

at::Tensor checked(const c10::IValue& value, const std::string& name, std::int64_t rows, const std::string& file) {
  if (!value.isTensor()) throw ModelError(file + ": output \"" + name + "\": expected a tensor, got " + value.tagKind());
  const at::Tensor& tensor = value.toTensor();
  if (tensor.dim() < 1 || tensor.size(0) != rows) {
    throw ModelError(file + ": output \"" + name + "\": expected " + std::to_string(rows) +
                     " rows in front, got a tensor of shape " + c10::str(tensor.sizes()));
  }
  return pool_tap(tensor.to(c10::kFloat));
}

NamedOutput read_output(const c10::IValue& value, std::int64_t rows, const std::string& file) {
  NamedOutput result;
  const auto add_tap = [&](const std::string& name, const c10::IValue& tensor) {
    result.names.push_back(name);
    result.output.taps.push_back(checked(tensor, name, rows, file));
  };
  if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) {
      if (!entry.key().isString()) throw ModelError(file + ": expected a dict with names as keys, got " + entry.key().tagKind());
      const std::string& name = entry.key().toStringRef();
      if (name == "logits") {
        result.output.logits = checked(entry.value(), name, rows, file);
      } else {
        add_tap(name, entry.value());
      }
    }
  } else if (value.isTuple()) {
    for (const c10::IValue& element : value.toTupleRef().elements()) add_tap("tap" + std::to_string(result.names.size()), element);
  } else if (value.isTensorList()) {
    for (const at::Tensor& element : value.toTensorVector()) add_tap("tap" + std::to_string(result.names.size()), element);
  } else if (value.isTensor()) {
    add_tap("tap0", value);
  } else {
    throw ModelError(file + ": expected forward to return a dict of tensors or a tuple of tensors, got " + value.tagKind());
  }
  if (result.names.empty()) throw ModelError(file + ": expected forward to return at least one tap, got none");
  return result;
}

NamedOutput run(torch::jit::Module& module, const at::Tensor& x, const std::string& file) {
  const at::NoGradGuard no_grad;
  c10::IValue returned;
  try {
    returned = module.forward({x});
  } catch (const std::exception& error) {
    throw ModelError(file + ": the network failed on an input of shape " + c10::str(x.sizes()) + ": " + message_of(error));
  }
  return read_output(returned, x.size(0), file);
}

}  // namespace

ScriptBackbone::ScriptBackbone(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape, c10::Device device)
    : program_(std::make_unique<Program>()), file_(file.string()), digest_(sha256_of_file(file)) {
  try {
    program_->module = torch::jit::load(file_, device);
    program_->module.eval();
  } catch (const std::exception& error) {
    throw ModelError(file_ + ": expected a TorchScript archive: " + message_of(error));
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
