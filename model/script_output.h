#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <exception>
#include <string>
#include <vector>

namespace fusion {

/// What a TorchScript backbone's `forward` returned: taps under their names, not pooled, and class scores if there were any.
struct ScriptOutput {
  std::vector<std::string> names;
  std::vector<at::Tensor> maps;
  at::Tensor logits;
};

/// Reads a dict of named tensors, a tuple, a list or a tensor (model/script_backbone.h). Every tensor must have `rows` in front. Throws
/// ModelError naming the file.
ScriptOutput read_script_output(const c10::IValue& value, std::int64_t rows, const std::string& file);

/// One line, without the JIT's traceback of C++ frames.
std::string script_message(const std::exception& error);

}  // namespace fusion
