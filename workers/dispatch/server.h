#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/asio.h"
#include "workers/dispatch/request_head.h"
#include "workers/dispatch/worker_session.h"

namespace fusion {

/// Answers a request: calls `respond` once, at once or later, from any thread. If it throws, or `respond` is destroyed
/// without a call, the answer is 500. Called on the I/O thread: it must not block.
using HttpHandler = std::function<void(HttpRequest, std::function<void(HttpResponse)> respond)>;

struct ServerOptions {
  std::string address = "127.0.0.1";
  std::uint16_t port = 0;                     ///< 0: any free one
  std::chrono::milliseconds timeout{30'000};  ///< for a request's head, for its body, for taking its answer, and between two
  std::uint32_t header_limit = 8u << 10;      ///< bytes of request line and header fields; beyond: 431
  std::uint64_t body_limit = 8u << 20;        ///< bytes; beyond: 413
  std::size_t connections = 1024;             ///< more at once are closed at once
  SessionOptions sessions;
};

/// The one port: HTTP/1.1 with keep-alive for the handler, WebSocket at /api/v1/worker for workers.
///
/// Refuses with 403 what a browser may have been misused to send (see `refusal_of`). Lives on the I/O thread. The dispatcher
/// must outlive the io_context's last run.
class Server {
 public:
  /// Listens at once. Throws ConfigError if the address is none, or is taken: then it says by what to go on.
  Server(asio::io_context& io, const ServerOptions& options, Dispatcher& dispatcher, HttpHandler handler);
  ~Server();  ///< as stop()
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  std::uint16_t port() const;
  /// Accepts nothing more; idle connections are closed, requests under way are answered first, worker sessions close when their
  /// outbox is empty (within `sessions.close`). Then nothing of the server keeps the io_context running.
  void stop();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace fusion
