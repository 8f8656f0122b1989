#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <string>

#include "security/stream.h"
#include "workers/client/daemon_url.h"
#include "workers/protocol/messages.h"

namespace fusion {

/// One WebSocket to a daemon, from the worker's end: opened once, used until it breaks, then thrown away.
///
/// A writer coroutine empties an outbox; reading is the owner's. A peer that is silent for `kIdle` although pinged is dead.
/// Lives on one thread; kept alive by its coroutines.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  static constexpr std::chrono::seconds kOpening{10};  ///< limit of connecting, and of the upgrade
  static constexpr std::chrono::seconds kIdle{20};

  explicit Connection(asio::io_context& io);

  /// Resolves, connects, secures the connection if `tls` is not null (then the URL's is true), and upgrades. Throws boost::system::system_error, or
  /// ConfigError with a sentence where trying again will not help: the daemon answered that the token is wrong or missing (401, 403), or its
  /// certificate cannot be trusted.
  asio::awaitable<void> open(DaemonUrl url, std::string token, std::shared_ptr<ssl::context> tls);

  /// The next message. Throws ProtocolError for a frame that is not legal, boost::system::system_error when the connection ended.
  asio::awaitable<protocol::Message> read();

  /// Puts a message into the outbox. Throws ProtocolError if it cannot be encoded (a figure that is not finite).
  void send(const protocol::Message& message);
  /// Says good-bye once the outbox is empty; what was sent has then reached the daemon. `read` throws afterwards.
  void close();
  /// Ends everything at once.
  void cut();

 private:
  asio::awaitable<void> write();
  void throw_if_cut() const;
  void check_answer(const websocket::response_type& answer, const DaemonUrl& url) const;

  websocket::stream<Stream> socket_;
  tcp::resolver resolver_;
  beast::flat_buffer buffer_;
  std::deque<std::string> outbox_;
  asio::steady_timer alarm_;  // wakes the writer
  bool closing_ = false;
  bool cut_ = false;
};

}  // namespace fusion
