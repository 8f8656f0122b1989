#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "base/asio.h"
#include "workers/protocol/messages.h"

namespace fusion::testing {

/// The daemon's end of the protocol, played by a test line by line over a real socket of the loopback. Every wait is bounded:
/// what does not come within 20 s throws.
class ScriptedDaemon {
 public:
  explicit ScriptedDaemon(unsigned short port = 0);

  unsigned short port() const { return port_; }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

  /// Waits for a worker and upgrades its connection; the request is kept.
  void accept();
  const http::request<http::string_body>& request() const { return request_; }
  /// Waits for a worker and answers its request with this status.
  void decline(http::status status);
  /// accept, hello, welcome.
  protocol::Hello welcome(double heartbeat_s = 60);

  void send(const protocol::Message& message);
  void send_text(const std::string& text);
  void send_binary(const std::string& bytes);

  /// The next message, or the next that is no Heartbeat.
  protocol::Message receive_any();
  protocol::Message receive();
  /// The next message but heartbeats must be a T.
  template <typename T>
  T expect() {
    const protocol::Message message = receive();
    if (const T* wanted = std::get_if<T>(&message)) return *wanted;
    throw std::runtime_error("another message came: " + describe(message));
  }
  /// Reads until the worker closed the connection in order; throws if a message comes.
  void expect_close();

  /// Drops the connection without a word, as a killed daemon does.
  void hang_up();
  /// Hangs up and listens no more; a second daemon may take the port.
  void die();

 private:
  static std::string describe(const protocol::Message& message);
  template <typename Start>
  boost::system::error_code wait(Start start, const std::string& what);
  void read_request();

  asio::io_context io_{1};
  tcp::acceptor acceptor_{io_};
  unsigned short port_ = 0;
  std::optional<websocket::stream<beast::tcp_stream>> socket_;
  http::request<http::string_body> request_;
};

}  // namespace fusion::testing
