#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fusion::ctl {

enum class Style { plain, bold, good, bad, faint };

/// What stdout can do.
struct Terminal {
  bool interactive = false;  ///< a terminal that lines can be redrawn on
  bool styled = false;       ///< bold and colours: interactive, and neither NO_COLOR nor --no-color
  std::size_t width = 0;     ///< columns; 0: not a terminal, nothing is cut
  std::size_t height = 0;    ///< lines; 0: not a terminal

  /// The size is asked for each time: windows change.
  static Terminal of_stdout(bool no_color);
};

/// The text in a style, where the terminal has styles.
std::string styled(std::string_view text, Style style, const Terminal& terminal);

/// Writes to stdout. A reader that went away ends the program (SIGPIPE); a full disk is noticed by `stdout_is_whole`.
void print(std::string_view text);
void print_line(std::string_view text);

/// Flushes; false if anything written to stdout was lost.
bool stdout_is_whole();

/// A sentence on stderr behind the program's name.
void say(std::string_view sentence);

}  // namespace fusion::ctl
