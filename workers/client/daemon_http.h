#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "workers/client/blob_fetcher.h"

namespace fusion {

struct HttpReply {
  unsigned status = 0;
  std::string body;
};

/// Nobody answered, or half: whether the request took effect is not known.
class NoAnswer : public Error {
  using Error::Error;
};

/// Small requests to the daemon over HTTP, one after the other on a connection that is kept. For requests that may be said twice: one that the daemon closed
/// meanwhile, as nothing was asked for a while, is made anew without a word. Blocks; one thread at a time.
class DaemonHttp {
 public:
  /// Address, token, trust and `silence` count. Throws ConfigError for a `ca_file` that is none.
  explicit DaemonHttp(const BlobFetcherOptions& options);
  ~DaemonHttp();
  DaemonHttp(const DaemonHttp&) = delete;
  DaemonHttp& operator=(const DaemonHttp&) = delete;

  /// `target`: "/api/v1/...". `stopped` is asked ten times a second; true: FetchStopped. Throws NoAnswer, and ConfigError for a certificate that cannot be
  /// trusted.
  HttpReply ask(const std::string& method, const std::string& target, std::string body, const std::function<bool()>& stopped);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The sentences of a refusal's body (docs/protocol.md); the status in words if it has none.
std::string problem_of(const HttpReply& reply);

}  // namespace fusion
