#include "tests/workers/client/scripted_daemon.h"

#include "workers/protocol/codec.h"

namespace fusion::testing {

namespace {
constexpr std::chrono::seconds kPatience{20};
}

ScriptedDaemon::ScriptedDaemon(unsigned short port) {
  const tcp::endpoint endpoint(asio::ip::make_address("127.0.0.1"), port);
  acceptor_.open(endpoint.protocol());
  acceptor_.set_option(asio::socket_base::reuse_address(true));
  acceptor_.bind(endpoint);
  acceptor_.listen();
  port_ = acceptor_.local_endpoint().port();
}

template <typename Start>
boost::system::error_code ScriptedDaemon::wait(Start start, const std::string& what) {
  auto result = std::make_shared<std::optional<boost::system::error_code>>();
  start([result](boost::system::error_code error, auto...) { *result = error; });
  io_.restart();
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!*result && std::chrono::steady_clock::now() < end) io_.run_one_for(std::chrono::milliseconds(100));
  if (!*result) throw std::runtime_error("nothing happened while waiting for " + what);
  return **result;
}

void ScriptedDaemon::read_request() {
  socket_.emplace(io_);
  tcp::socket& socket = beast::get_lowest_layer(*socket_).socket();
  auto error = wait([&](auto done) { acceptor_.async_accept(socket, done); }, "a worker");
  if (error) throw boost::system::system_error(error, "accept");
  socket.set_option(tcp::no_delay(true));
  beast::flat_buffer buffer;
  request_ = {};
  error = wait([&](auto done) { http::async_read(beast::get_lowest_layer(*socket_), buffer, request_, done); }, "a request");
  if (error) throw boost::system::system_error(error, "request");
}

void ScriptedDaemon::accept() {
  read_request();
  const auto error = wait([&](auto done) { socket_->async_accept(request_, done); }, "the upgrade");
  if (error) throw boost::system::system_error(error, "upgrade");
  socket_->text(true);
}

void ScriptedDaemon::decline(http::status status) {
  read_request();
  http::response<http::empty_body> answer(status, 11);
  answer.prepare_payload();
  wait([&](auto done) { http::async_write(beast::get_lowest_layer(*socket_), answer, done); }, "the answer to be written");
  hang_up();
}

protocol::Hello ScriptedDaemon::welcome(double heartbeat_s) {
  accept();
  const auto hello = expect<protocol::Hello>();
  send(protocol::Welcome{WorkerId{7}, 60, heartbeat_s, "0.1.0"});
  return hello;
}

void ScriptedDaemon::send(const protocol::Message& message) { send_text(protocol::encode(message)); }

void ScriptedDaemon::send_text(const std::string& text) {
  const auto error = wait([&](auto done) { socket_->async_write(asio::buffer(text), done); }, "a write");
  if (error) throw boost::system::system_error(error, "write");
}

void ScriptedDaemon::send_binary(const std::string& bytes) {
  socket_->binary(true);
  send_text(bytes);
  socket_->text(true);
}

protocol::Message ScriptedDaemon::receive_any() {
  beast::flat_buffer buffer;
  const auto error = wait([&](auto done) { socket_->async_read(buffer, done); }, "a message");
  if (error) throw boost::system::system_error(error, "read");
  return protocol::decode(beast::buffers_to_string(buffer.data()));
}

protocol::Message ScriptedDaemon::receive() {
  while (true) {
    protocol::Message message = receive_any();
    if (!std::holds_alternative<protocol::Heartbeat>(message)) return message;
  }
}

void ScriptedDaemon::expect_close() {
  beast::flat_buffer buffer;
  const auto error = wait([&](auto done) { socket_->async_read(buffer, done); }, "the end of the connection");
  if (!error) throw std::runtime_error("a message came: " + beast::buffers_to_string(buffer.data()));
  if (error != websocket::error::closed) throw boost::system::system_error(error, "the end was not in order");
}

void ScriptedDaemon::hang_up() {
  boost::system::error_code ignored;
  beast::get_lowest_layer(*socket_).socket().close(ignored);
  socket_.reset();
}

void ScriptedDaemon::die() {
  if (socket_) hang_up();
  acceptor_.close();
}

std::string ScriptedDaemon::describe(const protocol::Message& message) { return protocol::encode(message); }

}  // namespace fusion::testing
