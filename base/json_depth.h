#pragma once

#include <cstddef>
#include <string_view>

namespace fusion {

/// The deepest nesting of lists and objects in a JSON text, without parsing it: brackets outside of texts. Parsed values are written and
/// compared by functions that call themselves, so what strangers send is bounded before it is parsed.
std::size_t json_depth(std::string_view text);

/// Of a document; deeper than anything that we read.
inline constexpr std::size_t kMaxJsonDepth = 64;

}  // namespace fusion
