#include "model/script_output.h"

#include <string_view>

#include "base/error.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

at::Tensor checked(const c10::IValue& value, const std::string& name, std::int64_t rows, const std::string& file) {
  if (!value.isTensor()) throw ModelError(file + ": output \"" + name + "\": expected a tensor, got " + value.tagKind());
  const at::Tensor& tensor = value.toTensor();
  if (tensor.dim() < 1 || tensor.size(0) != rows) {
    throw ModelError(file + ": output \"" + name + "\": expected " + std::to_string(rows) +
                     " rows in front, got a tensor of shape " + c10::str(tensor.sizes()));
  }
  return tensor.to(c10::kFloat);
}

}  // namespace

std::string script_message(const std::exception& error) {
  if (const auto* const of_torch = dynamic_cast<const c10::Error*>(&error)) return compat::message_of(*of_torch);
  std::string text = error.what();
  text = text.substr(0, text.find("\nException raised from"));
  // An interpreter tells its own frames first, and at the end what went wrong.
  constexpr std::string_view kCause = "\nRuntimeError: ";
  if (const std::size_t at = text.rfind(kCause); at != std::string::npos) text = text.substr(at + kCause.size());
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

ScriptOutput read_script_output(const c10::IValue& value, std::int64_t rows, const std::string& file) {
  ScriptOutput result;
  const auto add_tap = [&](const std::string& name, const c10::IValue& tensor) {
    result.names.push_back(name);
    result.maps.push_back(checked(tensor, name, rows, file));
  };
  if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) {
      if (!entry.key().isString()) throw ModelError(file + ": expected a dict with names as keys, got " + entry.key().tagKind());
      const std::string& name = entry.key().toStringRef();
      if (name == "logits") {
        result.logits = checked(entry.value(), name, rows, file);
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

}  // namespace fusion
