#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace fusion {

/// One table per enum: enumerator <-> the text that stands in JSON, SQL, logs and on the command line.
/// Specialise `EnumNames<E>::kTable` beside the enum:
///
///     template <> struct EnumNames<Activation> {
///       static constexpr std::array<std::pair<Activation, std::string_view>, 2> kTable{{{Activation::relu, "relu"}, ...}};
///       static constexpr std::string_view kWhat = "activation";
///     };
template <typename E>
struct EnumNames;

template <typename E>
constexpr std::string_view name_of(E value) {
  for (const auto& [enumerator, text] : EnumNames<E>::kTable) {
    if (enumerator == value) return text;
  }
  return "?";
}

template <typename E>
constexpr std::optional<E> enum_from_name(std::string_view text) {
  for (const auto& [enumerator, name] : EnumNames<E>::kTable) {
    if (name == text) return enumerator;
  }
  return std::nullopt;
}

/// "relu, sigmoid, ...": what was allowed, for error messages.
template <typename E>
std::string enum_choices() {
  std::string text;
  for (const auto& [enumerator, name] : EnumNames<E>::kTable) {
    if (!text.empty()) text += ", ";
    text += name;
  }
  return text;
}

}  // namespace fusion
