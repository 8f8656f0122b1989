#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/error.h"

namespace fusion::ctl {

/// The daemon did not do what was asked though the request may have been fine: it is down, slow, broken, or not a daemon of
/// ours. `what()` is one or more sentences, one a line; the program ends with status 1.
class DaemonFailure : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Nothing listens there, or the host is not known.
class Unreachable : public DaemonFailure {
  using DaemonFailure::DaemonFailure;
};

/// The daemon refused the request with a status of 4xx; `what()` is its problems, one a line. Exit status 2.
class Refused : public Error {
 public:
  Refused(unsigned http_status, const std::string& problems) : Error(problems), status(http_status) {}
  unsigned status;
};

/// Where a daemon listens: `http://host[:port][/prefix]` or `https://...`, port 7878 if none is named, an IPv6 address in brackets.
struct Url {
  std::string host, port, prefix;
  bool tls = false;
  /// Throws ConfigError saying what was expected.
  static Url parse(std::string_view text);
  std::string text() const;
};

/// How a client shows who it is, and whom it trusts.
struct Credentials {
  std::string token;    ///< sent as `Authorization: Bearer` where it is not empty
  std::string ca_file;  ///< for https: what is trusted, PEM; empty: the system's authorities
};

/// A 2xx answer: the bytes as they came, and what they say (always an object).
struct Answer {
  std::string body;
  nlohmann::json value;
  /// The object or list behind a key. Throws DaemonFailure if there is none: another program listens there.
  const nlohmann::json& object(std::string_view key) const;
  const nlohmann::json& list(std::string_view key) const;
};

/// So many bytes of so many have come; the second is 0 where the daemon does not say.
using DownloadProgress = std::function<void(std::uint64_t bytes, std::uint64_t total)>;

/// Speaks HTTP/1.1 with the daemon, one connection per request. Calls block; not thread-safe.
///
/// Throws Refused for 4xx, Unreachable where no connection comes about, DaemonFailure for everything else: no answer in time, an
/// answer cut short, one that is not HTTP or not a JSON object, a status of 5xx; ConfigError where the daemon's certificate cannot be
/// trusted. Nothing is sent twice.
class HttpClient {
 public:
  /// Throws ConfigError where the token would cross a network without TLS.
  HttpClient(Url url, std::chrono::milliseconds timeout, Credentials credentials = {});
  /// `target` starts with /api/v1.
  Answer get(const std::string& target) const { return exchange("GET", target, ""); }
  Answer post(const std::string& target, const std::string& body = "{}") const { return exchange("POST", target, body); }
  /// Writes the answer's bytes to a file, as they come. The file is left as far as it got where this throws.
  void download(const std::string& target, const std::filesystem::path& file, const DownloadProgress& progress = {}) const;
  /// The same, for requests that may take longer than others.
  HttpClient with_timeout_of_at_least(std::chrono::milliseconds timeout) const {
    return HttpClient(url_, std::max(timeout, timeout_), credentials_);
  }
  const Url& url() const { return url_; }

 private:
  Answer exchange(const std::string& method, const std::string& target, const std::string& body) const;

  Url url_;
  std::chrono::milliseconds timeout_;
  Credentials credentials_;
};

}  // namespace fusion::ctl
