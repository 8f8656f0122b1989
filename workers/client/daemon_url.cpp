#include "workers/client/daemon_url.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace fusion {

namespace {

[[noreturn]] void wrong_url(std::string_view text, const std::string& what) {
  throw ConfigError("the daemon's URL \"" + std::string(text) + "\": " + what +
                    "; expected http://host[:port][/prefix] or https://host[:port][/prefix] (ws:// and wss:// are the same)");
}

bool is_port(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() && number >= 1 && number <= 65535;
}

bool printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 127; });
}

}  // namespace

std::string DaemonUrl::authority() const {
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + port;
}

DaemonUrl parse_daemon_url(std::string_view text) {
  std::string_view rest = text;
  DaemonUrl url;
  const std::size_t colons = std::min(rest.find("://"), rest.size());
  const std::string_view scheme = rest.substr(0, colons);
  url.tls = scheme == "https" || scheme == "wss";
  if (colons == rest.size() || (!url.tls && scheme != "http" && scheme != "ws")) wrong_url(text, "it has another scheme, or none");
  rest.remove_prefix(colons + 3);
  if (!printable(text)) wrong_url(text, "it has a blank or a character outside ASCII");
  if (rest.find_first_of("@?#") != std::string_view::npos) wrong_url(text, "it has a user, a query or a fragment");

  const std::size_t slash = std::min(rest.find('/'), rest.size());
  url.prefix = rest.substr(slash);
  while (url.prefix.ends_with('/')) url.prefix.pop_back();
  std::string_view authority = rest.substr(0, slash);
  if (authority.starts_with('[')) {
    const std::size_t bracket = authority.find(']');
    if (bracket == std::string_view::npos) wrong_url(text, "a bracket is not closed");
    url.host = authority.substr(1, bracket - 1);
    authority.remove_prefix(bracket + 1);
  } else {
    const std::size_t colon = std::min(authority.find(':'), authority.size());
    url.host = authority.substr(0, colon);
    authority.remove_prefix(colon);
  }
  if (url.host.empty()) wrong_url(text, "it names no host");
  if (authority.empty()) return url;
  if (authority.front() != ':' || !is_port(authority.substr(1))) {
    wrong_url(text, "\"" + std::string(authority) + "\" is not a port in [1, 65535]");
  }
  url.port = authority.substr(1);
  return url;
}

}  // namespace fusion
