#pragma once

#include <string>
#include <string_view>

namespace fusion {

/// Where a worker finds its daemon.
struct DaemonUrl {
  std::string host = "127.0.0.1";  ///< a name or an address; IPv6 without brackets
  std::string port = "7878";
  std::string prefix;  ///< "" or "/fusion": what a proxy wants in front of /api/v1/worker
  bool tls = false;    ///< https:// or wss://

  bool operator==(const DaemonUrl&) const = default;
  std::string authority() const;  ///< "127.0.0.1:7878", "[::1]:7878"
  std::string target() const { return prefix + "/api/v1/worker"; }
  std::string text() const { return (tls ? "https://" : "http://") + authority() + prefix; }
};

/// `http://host[:port][/prefix]` or `https://...`, or the same with `ws://` or `wss://`; port 7878 if none is named, an IPv6 address in brackets. Throws
/// ConfigError that names the text and what was allowed.
DaemonUrl parse_daemon_url(std::string_view text);

}  // namespace fusion
