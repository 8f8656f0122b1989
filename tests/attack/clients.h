#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/asio_ssl.h"
#include "tests/attack/target.h"
#include "workers/protocol/messages.h"

namespace fusion::attack {

inline constexpr const char* kLoopback = "127.0.0.1";

/// What came back: an HTTP status, or 0 where the connection was closed without an answer.
struct Answer {
  unsigned status = 0;
  std::string body;
};

/// One connection that speaks HTTP over TLS, and says what it is told to, legal or not. Calls block; one thread.
class HttpsClient {
 public:
  /// Throws system_error where no connection, or no handshake, comes about.
  explicit HttpsClient(const Target& target, const std::string& address = kLoopback);
  Answer ask(const std::string& method, const std::string& path, const std::string& token = "", const std::string& body = "");
  void send(const std::string& bytes);
  /// Sends as far as it goes: false once the peer is gone.
  bool try_send(const std::string& bytes);
  Answer answer();

 private:
  asio::io_context io_;
  std::shared_ptr<ssl::context> context_;
  ssl::stream<tcp::socket> stream_;
  beast::flat_buffer buffer_;
};

/// The same without TLS.
Answer ask_plainly(const Target& target, const std::string& text);

/// A worker's connection that says what it is told to. Calls block; one thread.
class Worker {
 public:
  /// `status` 101 if the upgrade was granted.
  Worker(const Target& target, const std::string& token);
  unsigned status() const { return status_; }
  /// Says hello and waits for the welcome; what else came is dropped. False if it was refused.
  bool join(const std::string& name, int slots = 1);
  void say(const protocol::Message& message);
  void say_raw(const std::string& frame, bool text = true);
  /// The next message; nothing if the connection ended.
  std::optional<protocol::Message> hear();
  /// The next message of kind M; others are dropped. Nothing if the connection ended first.
  template <typename M>
  std::optional<M> await() {
    while (auto message = hear()) {
      if (auto* wanted = std::get_if<M>(&*message)) return std::move(*wanted);
    }
    return std::nullopt;
  }
  /// How it ended: "1009", "refused: ..." where the daemon said so first, "closed".
  std::string end();

 private:
  asio::io_context io_;
  std::shared_ptr<ssl::context> context_;
  websocket::stream<ssl::stream<tcp::socket>> socket_;
  unsigned status_ = 0;
  std::string refused_;
};

}  // namespace fusion::attack
