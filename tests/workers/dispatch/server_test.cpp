#include "workers/dispatch/server.h"

#include <gmock/gmock.h>

#include "tests/workers/dispatch/harness.h"

namespace fusion {
namespace {

using protocol::Heartbeat;
using protocol::Hello;
using protocol::Refused;
using ::testing::HasSubstr;
using testing::Harness;
using testing::ScriptedWorker;
using std::chrono::milliseconds;

/// A client that sends bytes as they are.
class RawClient {
 public:
  explicit RawClient(std::uint16_t port) : stream_(io_) {
    stream_.connect(tcp::endpoint(asio::ip::make_address("127.0.0.1"), port));
  }
  void send(const std::string& bytes) { asio::write(stream_, asio::buffer(bytes)); }
  http::response<http::string_body> response(bool without_body = false) {
    http::response_parser<http::string_body> parser;
    parser.skip(without_body);
    http::read(stream_, buffer_, parser);
    return parser.release();
  }
  http::response<http::string_body> ask(const std::string& bytes, bool without_body = false) {
    send(bytes);
    return response(without_body);
  }
  bool ended() {
    boost::system::error_code error;
    char c;
    const std::size_t got = asio::read(stream_, asio::buffer(&c, 1), error);
    return got == 0 && error;
  }

 private:
  asio::io_context io_;
  tcp::socket stream_;
  beast::flat_buffer buffer_;
};

std::string get(const std::string& target, const std::string& more = "") {
  return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + more + "\r\n";
}

Hello hello() {
  Hello hello;
  hello.name = "w";
  return hello;
}

TEST(ServerTest, AnswersManyRequestsOnOneConnection) {
  Harness h;
  RawClient client(h.port());
  for (int i = 0; i < 3; ++i) {
    const auto response = client.ask(get("/api/v1/studies/1?top=" + std::to_string(i)));
    EXPECT_EQ(response.result_int(), 200u);
    EXPECT_EQ(response[http::field::content_type], "application/json");
    const auto body = nlohmann::json::parse(response.body());
    EXPECT_EQ(body.at("path"), "/api/v1/studies/1");
    EXPECT_EQ(body.at("query").at("top"), std::to_string(i));
    EXPECT_EQ(body.at("method"), "GET");
  }
  EXPECT_EQ(client.ask("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", true).result_int(), 200u);
  client.send(get("/a") + get("/b"));
  EXPECT_THAT(client.response().body(), HasSubstr("/a"));
  EXPECT_THAT(client.response().body(), HasSubstr("/b"));
  const auto last = client.ask(get("/c", "Connection: close\r\n"));
  EXPECT_FALSE(last.keep_alive());
  EXPECT_TRUE(client.ended());
}

TEST(ServerTest, TakesBodiesAndAnswersExpectations) {
  Harness h;
  RawClient client(h.port());
  const std::string head = "POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n";
  EXPECT_THAT(client.ask(head + "\r\nhello").body(), HasSubstr("\"bytes\":5"));
  EXPECT_EQ(client.ask(head + "Expect: 100-continue\r\n\r\n").result_int(), 100u);
  EXPECT_THAT(client.ask("hello").body(), HasSubstr("\"bytes\":5"));
}

TEST(ServerTest, HandlersMayAnswerLaterFromAnotherThreadOrFail) {
  Harness h;
  std::thread later;
  h.handler = [&later](HttpRequest request, std::function<void(HttpResponse)> respond) {
    if (request.path == "/throws") throw std::runtime_error("boom");
    if (request.path == "/drops") return;
    later = std::thread([respond] {
      HttpResponse response;
      response.status = 201;
      response.body = "later";
      respond(response);
      respond(http_problem(500, "twice"));
    });
  };
  RawClient client(h.port());
  const auto response = client.ask(get("/later"));
  later.join();
  EXPECT_EQ(response.result_int(), 201u);
  EXPECT_EQ(response.body(), "later");
  EXPECT_EQ(client.ask(get("/throws")).result_int(), 500u);
  const auto dropped = client.ask(get("/drops"));
  EXPECT_EQ(dropped.result_int(), 500u);
  EXPECT_THAT(dropped.body(), HasSubstr("{\"error\":{\"problems\":[\""));
}

TEST(ServerTest, BadRequestsAreAnsweredAndClosed) {
  Harness h([](DispatchOptions&, ServerOptions& options) { options.body_limit = 1000; });
  const auto status = [&h](const std::string& bytes, bool closes = true) {
    RawClient client(h.port());
    const unsigned got = client.ask(bytes).result_int();
    if (closes) {
      EXPECT_TRUE(client.ended()) << bytes.substr(0, 100);
    }
    return got;
  };
  EXPECT_EQ(status("nonsense\r\n\r\n"), 400u);
  EXPECT_EQ(status("GET / HTTP/1.1\r\n\r\n"), 400u) << "no Host";
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"), 400u);
  EXPECT_EQ(status(get("/a%zz"), false), 400u);
  EXPECT_EQ(status(get("/", "X: " + std::string(9000, 'x') + "\r\n")), 431u);
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n"), 413u);
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 403u);
  EXPECT_EQ(status(get("/", "Origin: http://evil.example\r\n")), 403u);
  EXPECT_EQ(status(get("/", "Origin: http://localhost\r\n"), false), 200u);
  EXPECT_EQ(status(get("/api/v1/worker"), false), 426u);
  EXPECT_EQ(status(get("/api/v1/worker", "Origin: http://evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                                         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")), 403u);
}

TEST(ServerTest, SlowAndSilentClientsAreCutOff) {
  Harness h([](DispatchOptions&, ServerOptions& options) { options.timeout = milliseconds(100); });
  RawClient silent(h.port()), slow(h.port()), bodyless(h.port());
  slow.send("GET / HT");
  bodyless.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_TRUE(silent.ended());
  EXPECT_TRUE(slow.ended());
  EXPECT_TRUE(bodyless.ended());
  EXPECT_EQ(RawClient(h.port()).ask(get("/")).result_int(), 200u);
}

TEST(ServerTest, APortInUseIsSaidInASentence) {
  Harness h;
  ServerOptions options;
  options.port = h.port();
  try {
    asio::io_context io;
    Server second(io, options, *h.dispatcher, {});
    FAIL() << "two servers on one port";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("cannot listen on 127.0.0.1:" + std::to_string(h.port())));
    EXPECT_THAT(error.what(), HasSubstr("--listen"));
  }
  options.address = "nowhere";
  asio::io_context io;
  EXPECT_THROW(Server(io, options, *h.dispatcher, {}), ConfigError);
}

TEST(ServerTest, FramesThatAreNotLegalAreRefusedWithASentence) {
  Harness h;
  const auto refused_with = [&h](const std::function<void(ScriptedWorker&)>& misbehave) {
    ScriptedWorker worker(h.port());
    misbehave(worker);
    const std::string error = worker.expect<Refused>().error;
    EXPECT_FALSE(worker.hear().has_value()) << "the connection is closed";
    EXPECT_EQ(worker.close_code(), static_cast<std::uint16_t>(websocket::close_code::policy_error));
    return error;
  };
  EXPECT_THAT(refused_with([](auto& w) { w.say_raw("garbage"); }), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused_with([](auto& w) { w.say(Heartbeat{}); }), HasSubstr("must be a hello"));
  EXPECT_THAT(refused_with([](auto& w) {
    Hello old = hello();
    old.protocol = 99;
    w.say(old);
  }), HasSubstr("speaks protocol version 4, the worker speaks 99"));
  EXPECT_THAT(refused_with([](auto& w) {
    w.join("w");
    w.say_raw(R"({"type": "heartbeat", "held": [{"trial": 0, "attempt": 1}]})");
  }), HasSubstr("/held/0/trial"));
  EXPECT_THAT(refused_with([](auto& w) {
    w.join("w");
    w.say(hello());
  }), HasSubstr("got {"));
  EXPECT_THAT(refused_with([](auto& w) {
    w.binary();
    w.say(hello());
  }), HasSubstr("text frame"));
  h.wait_until([&] { return h.dispatcher->connected_workers() == 0; });
}

TEST(ServerTest, FramesThatAreTooLargeEndTheConnection) {
  Harness h;
  ScriptedWorker worker(h.port());
  worker.join("w");
  try {
    worker.say_raw(std::string(protocol::kMaxFrame + 1, ' '));
  } catch (const boost::system::system_error&) {  // cut off while writing
  }
  EXPECT_FALSE(worker.hear().has_value());
  h.wait_until([&] { return h.dispatcher->connected_workers() == 0; });
}

TEST(ServerTest, AWorkerMustSayHelloInTime) {
  Harness h([](DispatchOptions&, ServerOptions& options) { options.sessions.hello = milliseconds(50); });
  ScriptedWorker worker(h.port());
  EXPECT_THAT(worker.expect<Refused>().error, HasSubstr("expected a hello within 50 ms"));
  EXPECT_FALSE(worker.hear().has_value());
}

TEST(ServerTest, ASilentPeerIsPingedThenDropped) {
  Harness h([](DispatchOptions&, ServerOptions& options) { options.sessions.idle = milliseconds(200); });
  ScriptedWorker worker(h.port());
  worker.join("w");  // and then reads nothing, so that no ping is answered
  h.wait_until([&] { return h.dispatcher->connected_workers() == 0; });
}

TEST(ServerTest, AWorkerThatComesWhileItStopsGetsNoSession) {
  Harness h;
  RawClient client(h.port());
  client.send("GET /api/v1/worker HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
              "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
              "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.response().result_int(), 100u) << "the request is half received";
  h.on_io([&] { h.listener->stop(); });
  client.send("{}");
  EXPECT_TRUE(client.ended());
}

TEST(ServerTest, StopsGracefully) {
  Harness h;
  ScriptedWorker worker(h.port());
  worker.join("w");
  RawClient idle(h.port());
  EXPECT_EQ(idle.ask(get("/")).result_int(), 200u);
  const std::uint16_t port = h.port();
  h.on_io([&] {
    h.dispatcher->drain_workers("the end");
    h.listener->stop();
  });
  EXPECT_EQ(worker.expect<protocol::Drain>().reason, "the end") << "what was sent before still arrives";
  EXPECT_FALSE(worker.hear().has_value());
  EXPECT_EQ(worker.close_code(), static_cast<std::uint16_t>(websocket::close_code::going_away));
  EXPECT_TRUE(idle.ended());
  EXPECT_THROW(RawClient{port}, boost::system::system_error);
  h.wait_until([&] { return h.dispatcher->connected_workers() == 0; });
}

}  // namespace
}  // namespace fusion
