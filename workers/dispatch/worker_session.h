#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <string>
#include <string_view>

#include "security/stream.h"
#include "workers/protocol/messages.h"

namespace fusion {

class Dispatcher;

struct SessionOptions {
  std::chrono::milliseconds hello{10'000};  ///< a worker that has not said hello by then is refused
  std::chrono::milliseconds idle{30'000};   ///< pinged after half of this without a frame; dead after all of it
  std::chrono::milliseconds close{5'000};   ///< how long a closing connection may take to empty its outbox
  std::uint64_t frame_limit = 16u << 20;    ///< bytes; a larger frame ends the connection with 1009
  std::uint64_t hello_limit = 4u << 20;     ///< of the first frame
  std::uint64_t outbox_limit = 64u << 20;   ///< bytes that may wait for the worker to read them; beyond: cut off
  std::size_t uncommitted = 512;            ///< frames that may be at the store at once: no more is read meanwhile
};

/// The connection of one worker: a reader coroutine, a writer coroutine and an outbox between them.
///
/// The first frame must be a hello of our protocol version, and every frame must be legal: else `refused` is sent and the
/// connection closed. What is legal goes to the dispatcher, in order. The dispatcher hears `leave` once, after `join`, when
/// the connection is gone. A worker that sends faster than the store commits is not read any further until what it sent is on disk (twice half of
/// `uncommitted` frames, or twice 4 MiB): then TCP makes it wait. Lives on the I/O thread; kept alive by its coroutines. The dispatcher must
/// outlive them.
class WorkerSession : public std::enable_shared_from_this<WorkerSession> {
 public:
  /// `token_id`: of the token that was shown, empty for the daemon's own user. `place` is kept as long as the session lives.
  WorkerSession(Stream stream, Dispatcher& dispatcher, SessionOptions options, std::string token_id, std::shared_ptr<void> place);

  /// Answers the upgrade and begins.
  void start(http::request<http::string_body> upgrade);

  /// Puts a message into the outbox; dropped when the connection is closing. A worker that leaves too much unread is cut off.
  void send(const protocol::Message& message);
  /// Sends `refused` with this sentence and closes.
  void refuse(const std::string& sentence);
  /// Closes when the outbox is empty. `reason` is told to the peer (first 120 bytes).
  void close(const std::string& reason);

  const std::string& worker_name() const { return name_; }  ///< empty before hello
  const std::string& token_id() const { return token_id_; }
  std::uint64_t frames_read() const { return frames_read_; }
  const std::string& peer() const { return peer_; }         ///< address:port

 private:
  asio::awaitable<void> read(http::request<http::string_body> upgrade);
  asio::awaitable<void> write();
  asio::awaitable<void> wait_for_room();
  void count_uncommitted(std::size_t bytes);
  void on_frame(std::string_view text);
  void on_hello(const protocol::Message& message);
  void reader_ended(std::exception_ptr error);
  void writer_ended(std::exception_ptr error);
  void close_with(websocket::close_code code, const std::string& reason);
  void cut();

  std::shared_ptr<void> place_;
  websocket::stream<Stream> socket_;
  Dispatcher& dispatcher_;
  const SessionOptions options_;
  const std::string token_id_;
  std::string peer_, name_, reason_;
  std::deque<std::string> outbox_;
  std::size_t outbox_bytes_ = 0;
  asio::steady_timer alarm_;     // wakes the writer
  asio::steady_timer deadline_;  // of hello, then of closing
  asio::steady_timer room_;      // wakes the reader
  std::size_t frames_ = 0, bytes_ = 0;  // read since the last mark was sent to the store
  std::uint64_t frames_read_ = 0;
  std::size_t marks_ = 0;               // that did not come back yet
  websocket::close_code code_ = websocket::close_code::normal;
  bool closing_ = false;
  bool reading_ = false;
};

}  // namespace fusion
