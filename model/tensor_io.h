#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

#include "base/tensor_files.h"
#include "model/flat_tensors.h"

namespace fusion {

/// A tensor of a file as a LibTorch tensor on the CPU: a copy that owns its memory, or a view that keeps the mapping alive and must
/// never be written to (that kills the process).
at::Tensor copy_tensor(const TensorView& view);
at::Tensor map_tensor(const TensorView& view);

/// Writes a `.safetensors` file atomically; tensors may be anywhere and of any layout.
void write_tensors(const std::filesystem::path& file, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata = {});

/// Fills every tensor of `into` from the file's tensor called `prefix` + its name. Throws ModelError that names the file and, all at
/// once, each tensor that is missing or of another shape; then nothing was changed. The file's other tensors do not matter.
void load_tensors(const SafetensorsFile& file, const NamedTensors& into, const std::string& prefix = "");

}  // namespace fusion
