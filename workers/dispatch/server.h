#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "base/asio_ssl.h"
#include "security/access.h"
#include "workers/dispatch/limits.h"
#include "workers/dispatch/request_head.h"
#include "workers/dispatch/worker_session.h"

namespace fusion {

/// Answers a request: calls `respond` once, at once or later, from any thread. If it throws, or `respond` is destroyed
/// without a call, the answer is 500. Called on the I/O thread: it must not block.
using HttpHandler = std::function<void(HttpRequest, std::function<void(HttpResponse)> respond)>;

struct ServerOptions : Limits {
  std::string address = "127.0.0.1";
  std::uint16_t port = 0;                ///< 0: any free one
  std::shared_ptr<ssl::context> tls{};   ///< null: plain; else (security/tls.h) plain HTTP is answered with 400
  const Access* access = nullptr;        ///< must outlive the server; null: loopback of the daemon's own user only
  SessionOptions sessions;               ///< its limits are taken from the Limits here
};

/// What the server has seen since it started; for whoever watches.
struct ServerCounts {
  std::size_t connections = 0, unproven = 0, sessions = 0;                           ///< now
  std::uint64_t frames = 0;                                                          ///< that the sessions of now have sent
  std::uint64_t evicted = 0, not_accepted = 0, unauthorized = 0, forbidden = 0;      ///< in all
  std::map<std::pair<std::string, int>, std::uint64_t> requests;                     ///< answers in all, by route and status; "other": before any handler
};

/// The one port: HTTP/1.1 with keep-alive for the handler, WebSocket at /api/v1/worker for workers, both under TLS if there is a context.
///
/// Asks `access` of each request as soon as its head is there, before any of its body is read; what is refused is answered with 401 or 403 and
/// closed. What no token proves is also refused with 403 if a browser may have been misused to send it (`refusal_of`). Requests on one
/// connection are answered one after the other, and read one at a time: pipelined ones wait in the system's buffer. Lives on the I/O
/// thread. The dispatcher must outlive the io_context's last run.
class Server {
 public:
  /// Listens at once. Throws ConfigError if the address is none, or is taken: then it says by what to go on.
  Server(asio::io_context& io, const ServerOptions& options, Dispatcher& dispatcher, HttpHandler handler);
  ~Server();  ///< as stop()
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  std::uint16_t port() const;
  ServerCounts counts() const;
  /// Closes the sessions of workers whose token is not valid any more; call it after Access::reload. Returns how many.
  std::size_t close_revoked();
  /// Accepts nothing more; idle connections are closed, requests under way are answered first, worker sessions close when their
  /// outbox is empty (within `sessions.close`). Then nothing of the server keeps the io_context running.
  void stop();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace fusion
