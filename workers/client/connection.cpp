#include "workers/client/connection.h"

#include <deque>
#include <random>

#include "base/error.h"
#include "base/log.h"
#include "workers/protocol/codec.h"

namespace fusion {

DaemonAddress DaemonAddress::parse(const std::string& url) {
  const auto bad = [&] {
    return ConfigError("daemon address: expected http://host:port such as http://127.0.0.1:7878, got \"" + url + "\"");
  };
  std::string rest;
  for (const char* scheme : {"http://", "ws://"}) {
    if (url.rfind(scheme, 0) == 0) rest = url.substr(std::string(scheme).size());
  }
  if (!rest.empty() && rest.back() == '/') rest.pop_back();
  const std::size_t colon = rest.rfind(':');
  if (colon == std::string::npos || colon == 0 || rest.find('/') != std::string::npos) throw bad();
  DaemonAddress address{rest.substr(0, colon), rest.substr(colon + 1)};
  if (address.port.empty() || address.port.size() > 5 || address.port.find_first_not_of("0123456789") != std::string::npos ||
      std::stoi(address.port) < 1 || std::stoi(address.port) > 65'535) {
    throw bad();
  }
  if (address.host.front() == '[' && address.host.back() == ']') address.host = address.host.substr(1, address.host.size() - 2);
  return address;
}

struct Connection::Link {
  explicit Link(asio::io_context& io) : socket(io), alarm(io) { alarm.expires_at(asio::steady_timer::time_point::max()); }
  websocket::stream<beast::tcp_stream> socket;
  std::deque<std::string> outbox;
  asio::steady_timer alarm;  ///< wakes the writer
  bool done = false;         ///< no more reading or writing
  bool last = false;         ///< close once the outbox is empty
};

Connection::Connection(asio::io_context& io, DaemonAddress address, std::string token, std::chrono::milliseconds first_delay,
                       std::chrono::milliseconds longest_delay, Events events)
    : io_(io),
      address_(std::move(address)),
      token_(std::move(token)),
      first_delay_(first_delay),
      longest_delay_(longest_delay),
      delay_(first_delay),
      events_(std::move(events)),
      pause_(io) {}

void Connection::start() {
  auto self = shared_from_this();
  auto on_end = [self](std::exception_ptr error) {
    if (error) {
      try {
        std::rethrow_exception(error);
      } catch (const std::exception& exception) {
        logger("worker")->error("connection ended for good error=\"{}\"", exception.what());
      }
    }
    self->finish();
  };
  asio::co_spawn(io_, keep_connected(), on_end);
}

void Connection::finish() {
  ended_ = true;
  if (closed_) std::exchange(closed_, nullptr)();
}

void Connection::send(const protocol::Message& message) {
  if (!link_ || link_->done) return;
  link_->outbox.push_back(protocol::encode(message));
  link_->alarm.cancel();
}

void Connection::close(std::function<void()> closed) {
  closing_ = true;
  if (ended_) return closed();
  closed_ = std::move(closed);
  pause_.cancel();
  if (link_) {
    link_->last = true;
    link_->alarm.cancel();
  }
}

void Connection::note(bool connected, const std::string& why) {
  if (connected) {
    logger("worker")->info("connected daemon={}", address_.shown());
    noted_failure_ = false;
  } else if (!closing_ && !noted_failure_) {  // once per state, not per try
    logger("worker")->warn("not connected, trying again for ever daemon={} reason=\"{}\"", address_.shown(), why);
    noted_failure_ = true;
  }
}

asio::awaitable<void> Connection::keep_connected() {
  std::minstd_rand jitter(std::random_device{}());
  while (!closing_) {
    std::string why;
    try {
      co_await one_connection();
      why = "the connection was closed";
    } catch (const std::exception& error) {
      why = error.what();
    }
    link_.reset();
    note(false, why);
    if (closing_) break;
    const double share = std::uniform_real_distribution<double>(0.5, 1.0)(jitter);
    pause_.expires_after(std::chrono::duration_cast<std::chrono::steady_clock::duration>(delay_ * share));
    delay_ = std::min(delay_ * 2, longest_delay_);
    boost::system::error_code ignored;
    auto token = asio::redirect_error(asio::use_awaitable, ignored);
    co_await pause_.async_wait(token);
  }
}

asio::awaitable<void> Connection::one_connection() {
  auto link = std::make_shared<Link>(io_);
  tcp::resolver resolver(io_);
  const auto found = co_await resolver.async_resolve(address_.host, address_.port, asio::use_awaitable);
  auto& stream = beast::get_lowest_layer(link->socket);
  stream.expires_after(std::chrono::seconds(10));
  co_await stream.async_connect(found, asio::use_awaitable);
  boost::system::error_code ignored;
  stream.socket().set_option(tcp::no_delay(true), ignored);
  stream.expires_never();
  websocket::stream_base::timeout timeouts = websocket::stream_base::timeout::suggested(beast::role_type::client);
  timeouts.idle_timeout = std::chrono::seconds(60);
  timeouts.keep_alive_pings = true;
  link->socket.set_option(timeouts);
  link->socket.read_message_max(protocol::kMaxFrame);
  if (!token_.empty()) {
    auto decorate = [token = token_](websocket::request_type& request) {
      request.set(http::field::authorization, "Bearer " + token);
    };
    websocket::stream_base::decorator decorator(decorate);
    link->socket.set_option(decorator);
  }
  const std::string host = address_.host.find(':') == std::string::npos ? address_.shown() : "[" + address_.host + "]:" + address_.port;
  const std::string target = "/api/v1/worker";
  co_await link->socket.async_handshake(host, target, asio::use_awaitable);
  if (closing_) co_return;
  link->socket.text(true);
  link_ = link;
  delay_ = first_delay_;
  note(true, "");
  const protocol::Message hello = events_.hello();
  send(hello);
  auto self = shared_from_this();
  auto on_written = [self, link](std::exception_ptr) {
    link->done = true;
    beast::get_lowest_layer(link->socket).close();
  };
  asio::co_spawn(io_, write_all(link), on_written);
  std::exception_ptr failure;
  try {
    co_await read_all(link);
  } catch (...) {
    failure = std::current_exception();
  }
  link->done = true;
  link->alarm.cancel();
  if (failure) std::rethrow_exception(failure);
}

asio::awaitable<void> Connection::write_all(std::shared_ptr<Link> link) {
  while (!link->done) {
    if (link->outbox.empty()) {
      if (link->last) {
        const websocket::close_reason reason(websocket::close_code::normal);
        co_await link->socket.async_close(reason, asio::use_awaitable);
        co_return;
      }
      boost::system::error_code ignored;
      auto token = asio::redirect_error(asio::use_awaitable, ignored);
      link->alarm.expires_at(asio::steady_timer::time_point::max());
      co_await link->alarm.async_wait(token);
      continue;
    }
    const std::string text = std::move(link->outbox.front());
    link->outbox.pop_front();
    const auto buffer = asio::buffer(text);
    co_await link->socket.async_write(buffer, asio::use_awaitable);
  }
}

asio::awaitable<void> Connection::read_all(std::shared_ptr<Link> link) {
  beast::flat_buffer buffer;
  while (!link->done) {
    co_await link->socket.async_read(buffer, asio::use_awaitable);
    const std::string text = beast::buffers_to_string(buffer.data());
    buffer.consume(buffer.size());
    const protocol::Message message = protocol::decode(text);  // a ProtocolError closes this connection
    events_.message(message);
  }
}

}  // namespace fusion
