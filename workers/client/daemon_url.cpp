#include "workers/client/daemon_url.h"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "base/files.h"

namespace fusion {

namespace {

[[noreturn]] void wrong_url(std::string_view text, const std::string& what) {
  throw ConfigError("the daemon's URL \"" + std::string(text) + "\": " + what +
                    "; expected http://host[:port][/prefix] or ws://host[:port][/prefix]");
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
  if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else if (rest.starts_with("ws://")) {
    rest.remove_prefix(5);
  } else {
    wrong_url(text, "it has another scheme, or none");
  }
  if (!printable(text)) wrong_url(text, "it has a blank or a character outside ASCII");
  if (rest.find_first_of("@?#") != std::string_view::npos) wrong_url(text, "it has a user, a query or a fragment");

  DaemonUrl url;
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

std::string worker_token(const std::filesystem::path& file) {
  std::string token;
  std::string source = "FUSION_TOKEN";
  if (!file.empty()) {
    source = file.string();
    token = read_text(file);
    struct stat status {};
    if (::stat(file.c_str(), &status) == 0 && (status.st_mode & 077) != 0) {
      char mode[8];
      std::snprintf(mode, sizeof mode, "%04o", static_cast<unsigned>(status.st_mode & 07777));
      throw ConfigError(source + ": others may read this token file (its mode is " + mode + "); expected 0600");
    }
    token = token.substr(0, token.find_first_of("\r\n"));
  } else if (const char* value = std::getenv("FUSION_TOKEN")) {
    token = value;
  }
  if (!printable(token)) throw ConfigError(source + ": the token has a blank or a character outside ASCII");
  return token;
}

}  // namespace fusion
