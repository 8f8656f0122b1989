#pragma once

#include <memory>
#include <utility>

#include "base/asio_ssl.h"

namespace fusion {

/// A TCP connection that speaks plainly until it is told to speak TLS: one type for both, so that HTTP and WebSocket code exists once.
///
/// An asynchronous stream of Asio: Beast's read, write and websocket::stream take it. Plain, it costs one branch a call. The time limits
/// are those of the `beast::tcp_stream` underneath (`transport()`), and hold for the handshake and for TLS records too. Moves; not thread-safe.
class Stream {
 public:
  using next_layer_type = beast::tcp_stream;
  using executor_type = beast::tcp_stream::executor_type;

  explicit Stream(tcp::socket socket) : tcp_(std::make_unique<beast::tcp_stream>(std::move(socket))) {}
  explicit Stream(const asio::any_io_executor& executor) : tcp_(std::make_unique<beast::tcp_stream>(executor)) {}
  explicit Stream(asio::io_context& io) : Stream(asio::any_io_executor(io.get_executor())) {}

  executor_type get_executor() noexcept { return tcp_->get_executor(); }
  beast::tcp_stream& next_layer() noexcept { return *tcp_; }
  const beast::tcp_stream& next_layer() const noexcept { return *tcp_; }
  beast::tcp_stream& transport() noexcept { return *tcp_; }

  /// From now on what is written and read goes through TLS; the handshake is the caller's next step. `context` is kept.
  ssl::stream<beast::tcp_stream&>& begin_tls(std::shared_ptr<ssl::context> context) {
    context_ = std::move(context);
    tls_ = std::make_unique<ssl::stream<beast::tcp_stream&>>(*tcp_, *context_);
    return *tls_;
  }
  bool is_tls() const { return tls_ != nullptr; }
  ssl::stream<beast::tcp_stream&>& tls() { return *tls_; }

  template <typename Buffers, typename Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return asio::async_initiate<Token, void(boost::system::error_code, std::size_t)>(
        [this](auto handler, const Buffers& into) {
          if (tls_) tls_->async_read_some(into, std::move(handler));
          else tcp_->async_read_some(into, std::move(handler));
        },
        token, buffers);
  }
  template <typename Buffers, typename Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return asio::async_initiate<Token, void(boost::system::error_code, std::size_t)>(
        [this](auto handler, const Buffers& from) {
          if (tls_) tls_->async_write_some(from, std::move(handler));
          else tcp_->async_write_some(from, std::move(handler));
        },
        token, buffers);
  }

 private:
  std::shared_ptr<ssl::context> context_;
  std::unique_ptr<beast::tcp_stream> tcp_;  // apart, so that tls_ may point to it
  std::unique_ptr<ssl::stream<beast::tcp_stream&>> tls_;
};

/// Ends a connection after the last WebSocket frame (Beast finds it by its name): with TLS's good-bye where there is TLS.
template <typename Handler>
void async_teardown(beast::role_type role, Stream& stream, Handler&& handler) {
  if (stream.is_tls()) stream.tls().async_shutdown(std::forward<Handler>(handler));
  else websocket::async_teardown(role, stream.transport().socket(), std::forward<Handler>(handler));
}
inline void teardown(beast::role_type role, Stream& stream, boost::system::error_code& error) {
  if (stream.is_tls()) stream.tls().shutdown(error);
  else websocket::teardown(role, stream.transport().socket(), error);
}

}  // namespace fusion
