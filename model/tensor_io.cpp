#include "model/tensor_io.h"

#include <ATen/ops/from_blob.h>

#include <vector>

#include "model/torch_compat.h"

namespace fusion {
namespace {

c10::ScalarType scalar_type(DType type) {
  switch (type) {
    case DType::f64: return c10::kDouble;
    case DType::f32: return c10::kFloat;
    case DType::f16: return c10::kHalf;
    case DType::bf16: return c10::kBFloat16;
    case DType::i64: return c10::kLong;
    case DType::i32: return c10::kInt;
    case DType::i16: return c10::kShort;
    case DType::i8: return c10::kChar;
    case DType::u8: return c10::kByte;
    case DType::boolean: return c10::kBool;
  }
  throw ModelError("tensor type " + std::to_string(static_cast<int>(type)) + " is unknown");
}

DType dtype_of(c10::ScalarType type) {
  for (const auto& [dtype, name] : EnumNames<DType>::kTable) {
    if (scalar_type(dtype) == type) return dtype;
  }
  throw ModelError(std::string("tensor type ") + c10::toString(type) + " cannot be written to a file; " + enum_choices<DType>() +
                   " can");
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "[" + text + "]";
}

}  // namespace

at::Tensor map_tensor(const TensorView& view) {
  void* const data = const_cast<std::byte*>(view.data);  // from_blob has no const form
  return at::from_blob(data, view.shape, [keep = view.file](void*) {}, at::TensorOptions().dtype(scalar_type(view.dtype)));
}

at::Tensor copy_tensor(const TensorView& view) { return map_tensor(view).clone(); }

void write_tensors(const std::filesystem::path& file, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata) {
  std::vector<at::Tensor> kept;
  std::vector<std::pair<std::string, TensorSource>> sources;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor plain = tensor.detach().to(c10::kCPU).contiguous();
    kept.push_back(plain);
    sources.emplace_back(name, TensorSource{dtype_of(plain.scalar_type()), plain.sizes().vec(), plain.data_ptr()});
  }
  write_safetensors(file, sources, metadata);
}

void load_tensors(const SafetensorsFile& file, const NamedTensors& into, const std::string& prefix) {
  std::vector<std::string> problems;
  for (const auto& [name, tensor] : into) {
    const std::string full = prefix + name;
    if (!file.contains(full)) {
      problems.push_back(file.path().string() + ": tensor \"" + full + "\" is missing");
    } else if (file.at(full).shape != tensor.sizes().vec()) {
      problems.push_back(file.path().string() + ": tensor \"" + full + "\": expected shape " + shape_text(tensor.sizes().vec()) +
                         ", got " + shape_text(file.at(full).shape));
    }
  }
  if (!problems.empty()) throw ModelError(join_problems(problems));
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : into) tensor.copy_(map_tensor(file.at(prefix + name)));
}

}  // namespace fusion
