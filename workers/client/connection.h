#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/asio.h"
#include "workers/protocol/messages.h"

namespace fusion {

/// Host, port and Host header of http://host:port or ws://host:port (a path is refused). Throws ConfigError.
struct DaemonAddress {
  std::string host, port;
  static DaemonAddress parse(const std::string& url);
  std::string shown() const { return host + ":" + port; }
};

/// One WebSocket connection to a daemon at a time, made again for ever. Lives on the thread of its io_context.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  struct Events {
    std::function<protocol::Hello()> hello;                 ///< what to say first on a new connection
    std::function<void(const protocol::Message&)> message;  ///< anything the daemon said
  };
  Connection(asio::io_context& io, DaemonAddress address, std::string token, std::chrono::milliseconds first_delay,
             std::chrono::milliseconds longest_delay, Events events);

  /// Begins to connect; never gives up until `close`.
  void start();
  /// Sends now, or never: what must arrive is the caller's to send again after the next hello.
  void send(const protocol::Message& message);
  /// Sends what is queued, then closes; no new connection is made. `closed` is called once.
  void close(std::function<void()> closed);
  bool open() const { return link_ != nullptr; }

 private:
  struct Link;
  asio::awaitable<void> keep_connected();
  asio::awaitable<void> one_connection();
  asio::awaitable<void> write_all(std::shared_ptr<Link> link);
  asio::awaitable<void> read_all(std::shared_ptr<Link> link);
  void note(bool connected, const std::string& why);
  void finish();

  asio::io_context& io_;
  DaemonAddress address_;
  std::string token_;
  std::chrono::milliseconds first_delay_, longest_delay_, delay_;
  Events events_;
  std::shared_ptr<Link> link_;  ///< the open connection, once the WebSocket stands
  asio::steady_timer pause_;
  bool closing_ = false, ended_ = false, was_connected_ = false, noted_failure_ = false;
  std::function<void()> closed_;
};

}  // namespace fusion
