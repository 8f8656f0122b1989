#include "workers/dispatch/worker_session.h"

#include <netinet/tcp.h>

#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "workers/dispatch/dispatcher.h"
#include "workers/dispatch/log_text.h"
#include "workers/protocol/codec.h"

namespace fusion {

namespace {

constexpr std::size_t kMarkBytes = 4u << 20;  // a mark goes to the store after so many, however few frames
constexpr std::size_t kMarks = 2;            // that may be under way: one is being committed while the next gathers
constexpr std::size_t kMaxReason = 120;  // a close frame holds 123 bytes

std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const boost::system::system_error& e) {
    if (e.code() == websocket::error::closed) return "the worker closed the connection";
    return e.code().message();
  } catch (const std::exception& e) {
    return e.what();
  }
}

/// Holds small packets back, or lets them go.
void cork(tcp::socket& socket, bool on) {
  boost::system::error_code ignored;
  socket.set_option(asio::detail::socket_option::boolean<IPPROTO_TCP, TCP_CORK>(on), ignored);
}

std::string text_of(const tcp::endpoint& endpoint) {
  return endpoint.address().to_string() + ":" + std::to_string(endpoint.port());
}

}  // namespace

WorkerSession::WorkerSession(Stream stream, Dispatcher& dispatcher, SessionOptions options, std::string token_id, std::shared_ptr<void> place)
    : place_(std::move(place)),
      socket_(std::move(stream)),
      dispatcher_(dispatcher),
      options_(options),
      token_id_(std::move(token_id)),
      alarm_(socket_.get_executor()),
      deadline_(socket_.get_executor()),
      room_(socket_.get_executor()) {
  boost::system::error_code ignored;
  peer_ = text_of(beast::get_lowest_layer(socket_).socket().remote_endpoint(ignored));
  alarm_.expires_at(asio::steady_timer::time_point::max());
}

void WorkerSession::start(http::request<http::string_body> upgrade) {
  beast::get_lowest_layer(socket_).expires_never();  // the WebSocket has timeouts of its own
  websocket::stream_base::timeout timeouts{};
  timeouts.handshake_timeout = options_.close;
  timeouts.idle_timeout = options_.idle;
  timeouts.keep_alive_pings = true;
  socket_.set_option(timeouts);
  socket_.read_message_max(options_.hello_limit);
  socket_.auto_fragment(false);
  deadline_.expires_after(options_.hello);
  deadline_.async_wait([weak = weak_from_this(), limit = options_.hello](boost::system::error_code error) {
    const auto self = weak.lock();
    if (error || !self || !self->name_.empty()) return;
    self->refuse("expected a hello within " + std::to_string(limit.count()) + " ms of connecting, got none");
  });
  reading_ = true;
  auto ended = [self = shared_from_this()](std::exception_ptr error) { self->reader_ended(error); };
  asio::co_spawn(socket_.get_executor(), read(std::move(upgrade)), std::move(ended));
}

asio::awaitable<void> WorkerSession::read(http::request<http::string_body> upgrade) {
  const auto self = shared_from_this();
  co_await socket_.async_accept(upgrade, asio::use_awaitable);
  auto ended = [self](std::exception_ptr error) { self->writer_ended(error); };
  asio::co_spawn(socket_.get_executor(), write(), std::move(ended));
  beast::flat_buffer buffer;
  while (!closing_) {
    co_await socket_.async_read(buffer, asio::use_awaitable);
    const auto bytes = buffer.data();
    on_frame(std::string_view(static_cast<const char*>(bytes.data()), bytes.size()));
    count_uncommitted(bytes.size());
    buffer.consume(buffer.size());
    if (buffer.capacity() > kMarkBytes) buffer.shrink_to_fit();
    co_await wait_for_room();
  }
}

// A mark is work that does nothing: it comes back when all that was sent before it is on disk.
void WorkerSession::count_uncommitted(std::size_t bytes) {
  ++frames_;
  ++frames_read_;
  bytes_ += bytes;
  if (closing_ || (frames_ < options_.uncommitted / kMarks && bytes_ < kMarkBytes)) return;
  frames_ = bytes_ = 0;
  ++marks_;
  dispatcher_.after_commits([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    --self->marks_;
    self->room_.cancel();
  });
}

asio::awaitable<void> WorkerSession::wait_for_room() {
  while (marks_ >= kMarks && !closing_) {
    boost::system::error_code woken;
    room_.expires_at(asio::steady_timer::time_point::max());
    co_await room_.async_wait(asio::redirect_error(asio::use_awaitable, woken));
  }
}

// Frames that wait together (the acknowledgements of one commit) leave in as few packets as hold them, and wake the worker once.
asio::awaitable<void> WorkerSession::write() {
  const auto self = shared_from_this();
  socket_.text(true);
  bool corked = false;
  while (true) {
    if (corked ? outbox_.empty() : outbox_.size() > 1) {
      corked = !corked;
      cork(beast::get_lowest_layer(socket_).socket(), corked);
    }
    if (!outbox_.empty()) {
      const std::string frame = std::move(outbox_.front());
      outbox_.pop_front();
      outbox_bytes_ -= frame.size();
      co_await socket_.async_write(asio::buffer(frame), asio::use_awaitable);
    } else if (closing_) {
      break;
    } else {
      boost::system::error_code woken;
      co_await alarm_.async_wait(asio::redirect_error(asio::use_awaitable, woken));
    }
  }
  const websocket::close_reason reason(code_, reason_);
  boost::system::error_code ignored;
  co_await socket_.async_close(reason, asio::redirect_error(asio::use_awaitable, ignored));
}

void WorkerSession::on_frame(std::string_view text) {
  if (closing_) return;
  try {
    if (!socket_.got_text()) throw ProtocolError("frame: expected a text frame, got a binary one");
    const protocol::Message message = protocol::decode(text);
    if (name_.empty()) {
      on_hello(message);
    } else {
      dispatcher_.on_message(*this, message);
    }
  } catch (const ProtocolError& error) {
    refuse(error.what());
  }
}

void WorkerSession::on_hello(const protocol::Message& message) {
  const auto* hello = std::get_if<protocol::Hello>(&message);
  if (hello == nullptr) throw ProtocolError("frame: /type: the first frame of a worker must be a hello");
  if (hello->protocol != protocol::kVersion) {
    throw ProtocolError("this daemon speaks protocol version " + std::to_string(protocol::kVersion) + ", the worker speaks " +
                        std::to_string(hello->protocol) + "; run the same release on both sides");
  }
  name_ = hello->name;
  socket_.read_message_max(options_.frame_limit);
  deadline_.cancel();
  dispatcher_.join(shared_from_this(), *hello);
}

void WorkerSession::send(const protocol::Message& message) {
  if (closing_ || !reading_) return;
  outbox_.push_back(protocol::encode(message));
  outbox_bytes_ += outbox_.back().size();
  alarm_.cancel();
  if (outbox_bytes_ > options_.outbox_limit) {
    logger("dispatch")->warn("worker cut off worker={} peer={} unread_bytes={}", name_, peer_, outbox_bytes_);
    cut();
  }
}

void WorkerSession::refuse(const std::string& sentence) {
  logger("dispatch")->warn("worker refused worker={} peer={} reason={}", name_.empty() ? "-" : name_, peer_,
                           log_text(sentence));
  send(protocol::Refused{sentence});
  close_with(websocket::close_code::policy_error, "refused");
}

void WorkerSession::close(const std::string& reason) { close_with(websocket::close_code::going_away, reason); }

void WorkerSession::close_with(websocket::close_code code, const std::string& reason) {
  if (std::exchange(closing_, true)) return;
  code_ = code;
  reason_ = reason.substr(0, kMaxReason);
  alarm_.cancel();
  room_.cancel();
  deadline_.expires_after(options_.close);
  deadline_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto self = weak.lock();
    if (!error && self) self->cut();
  });
}

// Both coroutines then end with an error.
void WorkerSession::cut() {
  closing_ = true;
  room_.cancel();
  outbox_.clear();
  outbox_bytes_ = 0;
  boost::system::error_code ignored;
  beast::get_lowest_layer(socket_).socket().close(ignored);
}

void WorkerSession::reader_ended(std::exception_ptr error) {
  reading_ = false;
  const std::string reason = !reason_.empty() ? reason_ : error ? text_of(error) : "closed";
  if (error && !closing_) {
    logger("dispatch")->debug("connection ended worker={} peer={} reason={}", name_.empty() ? "-" : name_, peer_,
                              log_text(text_of(error)));
    cut();
  }
  alarm_.cancel();
  if (name_.empty()) {
    if (!closing_ || error) deadline_.cancel();
    return;
  }
  dispatcher_.leave(*this, reason);
}

void WorkerSession::writer_ended(std::exception_ptr error) {
  if (error && !closing_) {
    logger("dispatch")->debug("writing failed worker={} peer={} reason={}", name_.empty() ? "-" : name_, peer_,
                              log_text(text_of(error)));
  }
  deadline_.cancel();
  cut();
}

}  // namespace fusion
