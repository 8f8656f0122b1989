#include "workers/client/connection.h"

#include <exception>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "security/tls.h"
#include "workers/protocol/codec.h"

namespace fusion {

using asio::use_awaitable;

Connection::Connection(asio::io_context& io) : socket_(io), resolver_(io), alarm_(io) {}

asio::awaitable<void> Connection::open(DaemonUrl url, std::string token, std::shared_ptr<ssl::context> tls) {
  const auto self = shared_from_this();
  const auto endpoints = co_await resolver_.async_resolve(url.host, url.port, use_awaitable);
  throw_if_cut();
  beast::tcp_stream& stream = beast::get_lowest_layer(socket_);
  stream.expires_after(kOpening);
  co_await stream.async_connect(endpoints, use_awaitable);
  throw_if_cut();
  stream.socket().set_option(tcp::no_delay(true));
  if (tls) co_await connect_tls(socket_.next_layer(), tls, url.host, url.text());
  stream.expires_never();  // from here on the WebSocket keeps the time

  websocket::stream_base::timeout timeout{};
  timeout.handshake_timeout = kOpening;
  timeout.idle_timeout = kIdle;
  timeout.keep_alive_pings = true;
  socket_.set_option(timeout);
  socket_.read_message_max(protocol::kMaxFrame);
  const auto decorate = [token](websocket::request_type& request) {
    request.set(http::field::user_agent, std::string("fusion-worker/") + kCodeVersion);
    if (!token.empty()) request.set(http::field::authorization, "Bearer " + token);
  };
  socket_.set_option(websocket::stream_base::decorator(decorate));
  const std::string authority = url.authority();
  const std::string target = url.target();
  websocket::response_type answer;
  boost::system::error_code error;
  co_await socket_.async_handshake(answer, authority, target, asio::redirect_error(use_awaitable, error));
  if (error) {
    check_answer(answer, url);
    throw boost::system::system_error(error);
  }
  socket_.text(true);

  auto writer = [self]() { return self->write(); };
  auto ended = [self](std::exception_ptr) { self->cut(); };  // the reader says why
  asio::co_spawn(socket_.get_executor(), std::move(writer), std::move(ended));
}

// What had ended already when it was cut is not undone by closing the socket: a connect would open it again.
void Connection::throw_if_cut() const {
  if (cut_) throw boost::system::system_error(asio::error::operation_aborted);
}

void Connection::check_answer(const websocket::response_type& answer, const DaemonUrl& url) const {
  const unsigned status = answer.result_int();
  if (status != 401 && status != 403) return;
  throw ConfigError("the daemon at " + url.text() + " refused the token (" + std::to_string(status) + " " +
                    std::string(answer.reason()) + "); give a worker's token by FUSION_TOKEN or --token-file");
}

asio::awaitable<protocol::Message> Connection::read() {
  const auto self = shared_from_this();
  buffer_.consume(buffer_.size());
  co_await socket_.async_read(buffer_, use_awaitable);
  if (!socket_.got_text()) throw ProtocolError("frame: expected text, got a binary frame");
  const std::string_view text(static_cast<const char*>(buffer_.data().data()), buffer_.size());
  co_return protocol::decode(text);
}

asio::awaitable<void> Connection::write() {
  while (!cut_) {
    if (!outbox_.empty()) {
      const std::string frame = std::move(outbox_.front());
      outbox_.pop_front();
      const asio::const_buffer bytes = asio::buffer(frame);
      co_await socket_.async_write(bytes, use_awaitable);
    } else if (closing_) {
      const websocket::close_reason reason(websocket::close_code::normal);
      co_await socket_.async_close(reason, use_awaitable);
      co_return;
    } else {
      alarm_.expires_at(asio::steady_timer::time_point::max());
      boost::system::error_code woken;
      co_await alarm_.async_wait(asio::redirect_error(use_awaitable, woken));
    }
  }
}

void Connection::send(const protocol::Message& message) {
  if (closing_ || cut_) return;
  outbox_.push_back(protocol::encode(message));
  alarm_.cancel();
}

void Connection::close() {
  closing_ = true;
  alarm_.cancel();
}

void Connection::cut() {
  cut_ = true;
  closing_ = true;
  outbox_.clear();
  resolver_.cancel();
  alarm_.cancel();
  beast::get_lowest_layer(socket_).close();
}

}  // namespace fusion
