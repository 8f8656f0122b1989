#pragma once

// Everything in which LibTorch 1.13 and 2.x differ as far as this project is concerned, and the aliases that hide it. Call sites use
// these names only. Cheap to include.
#include <ATen/core/grad_mode.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <torch/version.h>

#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
#include <optional>
#else
#include <c10/util/Optional.h>
#endif

#include <string>

namespace fusion::compat {

// c10::optional is a type of its own before 2.4, an alias of std::optional since, and on its way out.
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
template <typename T>
using Optional = std::optional<T>;
inline constexpr auto nullopt = std::nullopt;
#else
template <typename T>
using Optional = c10::optional<T>;
inline constexpr auto nullopt = c10::nullopt;
#endif

/// "1.13.1": of the LibTorch that was compiled against.
inline constexpr const char* kTorchVersion = TORCH_VERSION;

/// A LibTorch error as a text that can be shown and sent: without the stack trace, in one line.
inline std::string message_of(const c10::Error& error) {
  std::string text = error.what_without_backtrace();
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

/// Whether a text, of a TorchScript interpreter that keeps no more of an error, says so.
inline bool says_out_of_memory(const std::string& text) {
  return text.find("DefaultCPUAllocator") != std::string::npos || text.find("out of memory") != std::string::npos;
}

/// Whether it says that a host's or a device's memory ran out. (The CPU's allocator throws an error without a kind of its own.)
inline bool is_out_of_memory(const c10::Error& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error)) return true;
  return says_out_of_memory(error.what_without_backtrace());
}

}  // namespace fusion::compat
