#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fusion::ctl {

enum class Align { left, right };

/// Columns a text takes on a terminal: 0 for combining marks, 2 for wide (East Asian) characters and emoji, 1 for the rest.
/// Invalid UTF-8 counts one column a byte.
std::size_t display_width(std::string_view utf8);

/// A text that came over the network, safe to print in one line: line ends and tabs become a blank, other control characters
/// (which could steer a terminal) and invalid UTF-8 become U+FFFD.
std::string one_line(std::string_view text);

/// At most `width` columns; what was cut is shown by an ellipsis in the last one. Never cuts a character or leaves a mark
/// without its base.
std::string truncated(std::string_view utf8, std::size_t width);

/// Blanks before or behind up to `width` columns; a wider text stays as it is.
std::string padded(std::string_view utf8, std::size_t width, Align align);

}  // namespace fusion::ctl
