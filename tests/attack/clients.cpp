#include "tests/attack/clients.h"

#include "security/tls.h"
#include "workers/protocol/codec.h"

namespace fusion::attack {

namespace {

tcp::endpoint endpoint_of(const Target& target, const std::string& address) {
  return {asio::ip::make_address(address), target.port()};
}

template <typename S>
Answer read_answer(S& stream, beast::flat_buffer& buffer) {
  http::response_parser<http::string_body> parser;
  parser.body_limit(64u << 20);
  boost::system::error_code error;
  http::read(stream, buffer, parser, error);
  if (!parser.is_done()) return {};
  const auto response = parser.release();
  return {response.result_int(), response.body()};
}

}  // namespace

HttpsClient::HttpsClient(const Target& target, const std::string& address) : context_(client_tls(target.ca())), stream_(io_, *context_) {
  stream_.next_layer().connect(endpoint_of(target, address));
  stream_.next_layer().set_option(tcp::no_delay(true));
  stream_.handshake(ssl::stream_base::client);
}

Answer HttpsClient::ask(const std::string& method, const std::string& path, const std::string& token, const std::string& body) {
  std::string text = method + " " + path + " HTTP/1.1\r\nHost: " + kLoopback + "\r\n";
  if (!token.empty()) text += "Authorization: Bearer " + token + "\r\n";
  if (method == "POST" || method == "PUT") text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  try_send(text + "\r\n" + body);
  return answer();
}

void HttpsClient::send(const std::string& bytes) { asio::write(stream_, asio::buffer(bytes)); }

bool HttpsClient::try_send(const std::string& bytes) {
  boost::system::error_code error;
  asio::write(stream_, asio::buffer(bytes), error);
  return !error;
}

Answer HttpsClient::answer() { return read_answer(stream_, buffer_); }

Answer ask_plainly(const Target& target, const std::string& text) {
  asio::io_context io;
  tcp::socket socket(io);
  boost::system::error_code error;
  socket.connect(endpoint_of(target, kLoopback));
  asio::write(socket, asio::buffer(text), error);
  beast::flat_buffer buffer;
  return read_answer(socket, buffer);
}

Worker::Worker(const Target& target, const std::string& token) : context_(client_tls(target.ca())), socket_(io_, *context_) {
  tcp::socket& socket = beast::get_lowest_layer(socket_);
  socket.connect(endpoint_of(target, kLoopback));
  socket.set_option(tcp::no_delay(true));
  socket_.next_layer().handshake(ssl::stream_base::client);
  socket_.set_option(websocket::stream_base::decorator([token](websocket::request_type& request) {
    if (!token.empty()) request.set(http::field::authorization, "Bearer " + token);
  }));
  websocket::response_type response;
  boost::system::error_code error;
  socket_.handshake(response, kLoopback, "/api/v1/worker", error);
  status_ = response.result_int();
}

bool Worker::join(const std::string& name, int slots) {
  protocol::Hello hello;
  hello.name = name;
  hello.host = "attack";
  hello.device = "cpu";
  hello.pack = hello.slots = slots;
  hello.code_version = hello.torch_version = "1";
  say(hello);
  return await<protocol::Welcome>().has_value();
}

void Worker::say(const protocol::Message& message) { say_raw(protocol::encode(message)); }

void Worker::say_raw(const std::string& frame, bool text) {
  boost::system::error_code ignored;  // whoever is cut off hears of it when reading
  socket_.text(text);
  socket_.write(asio::buffer(frame), ignored);
}

std::optional<protocol::Message> Worker::hear() {
  beast::flat_buffer buffer;
  boost::system::error_code error;
  socket_.read(buffer, error);
  if (error) return std::nullopt;
  protocol::Message message = protocol::decode(beast::buffers_to_string(buffer.data()));
  if (const auto* refused = std::get_if<protocol::Refused>(&message)) refused_ = refused->error;
  return message;
}

std::string Worker::end() {
  while (hear()) {
  }
  const unsigned code = socket_.reason().code;
  const std::string ended = code == 0 ? "closed" : std::to_string(code);
  return refused_.empty() ? ended : ended + " refused: " + refused_;
}

}  // namespace fusion::attack
