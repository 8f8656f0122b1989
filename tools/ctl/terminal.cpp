#include "tools/ctl/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "tools/ctl/text.h"

namespace fusion::ctl {

Terminal Terminal::of_stdout(bool no_color) {
  Terminal terminal;
  if (::isatty(STDOUT_FILENO) != 1) return terminal;
  const char* kind = std::getenv("TERM");
  const char* asked = std::getenv("NO_COLOR");
  terminal.interactive = kind != nullptr && std::string_view(kind) != "dumb" && *kind != '\0';
  terminal.styled = terminal.interactive && !no_color && (asked == nullptr || *asked == '\0');
  winsize size{};
  const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
  terminal.width = known && size.ws_col > 0 ? size.ws_col : 80;
  terminal.height = known && size.ws_row > 0 ? size.ws_row : 24;
  return terminal;
}

std::string styled(std::string_view text, Style style, const Terminal& terminal) {
  if (!terminal.styled || style == Style::plain || text.empty()) return std::string(text);
  const char* code = "1";
  if (style == Style::good) code = "32";
  if (style == Style::bad) code = "31";
  if (style == Style::faint) code = "2";
  return "\033[" + std::string(code) + "m" + std::string(text) + "\033[0m";
}

void print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void print_line(std::string_view text) {
  print(text);
  print("\n");
}

bool stdout_is_whole() { return std::fflush(stdout) == 0 && std::ferror(stdout) == 0; }

void say(std::string_view sentence) {
  std::fflush(stdout);  // where both go to one file, the order is that of the program
  std::fprintf(stderr, "fusionctl: %s\n", one_line(sentence).c_str());
}

}  // namespace fusion::ctl
