#include "workers/dispatch/server.h"

#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "workers/dispatch/dispatcher.h"
#include "workers/dispatch/log_text.h"

namespace fusion {

namespace {

using Request = http::request<http::string_body>;
using Parser = http::request_parser<http::string_body>;

constexpr const char* kWorkerPath = "/api/v1/worker";
constexpr std::chrono::milliseconds kAcceptPause{100};  // when the system has no descriptor left

/// Where a coroutine waits for the answer that a handler gives later.
struct Answer {
  explicit Answer(const asio::any_io_executor& executor) : given(executor) {
    given.expires_at(asio::steady_timer::time_point::max());
  }
  asio::steady_timer given;
  std::optional<HttpResponse> response;
};

/// The handler's end: posts what it is given, from whatever thread, or 500 if it is dropped. Copies of the `respond` function
/// share one.
class Responder {
 public:
  Responder(asio::any_io_executor executor, std::shared_ptr<Answer> answer)
      : executor_(std::move(executor)), answer_(std::move(answer)) {}
  ~Responder() { post(http_problem(500, "the daemon dropped this request; its log may say why")); }
  Responder(const Responder&) = delete;
  Responder& operator=(const Responder&) = delete;
  void post(HttpResponse response) {
    auto deliver = [answer = answer_, response = std::move(response)]() mutable {
      if (answer->response) return;  // the first one counts
      answer->response = std::move(response);
      answer->given.cancel();
    };
    asio::post(executor_, std::move(deliver));
  }

 private:
  asio::any_io_executor executor_;
  std::shared_ptr<Answer> answer_;
};

HttpResponse problem_of(boost::system::error_code error, const ServerOptions& options) {
  if (error == http::error::header_limit) {
    return http_problem(431, "the request's head is larger than " + std::to_string(options.header_limit) + " bytes");
  }
  if (error == http::error::body_limit) {
    return http_problem(413, "the request's body is larger than " + std::to_string(options.body_limit) + " bytes");
  }
  return http_problem(400, "the request is not legal HTTP: " + error.message());
}

template <typename Body>
void set_fields(http::response<Body>& message, const HttpResponse& response, bool keep_alive) {
  message.set(http::field::server, "fusiond");
  message.set(http::field::content_type, response.content_type);
  message.set(http::field::cache_control, "no-store");
  message.set("X-Content-Type-Options", "nosniff");
  for (const auto& [name, value] : response.headers) message.set(name, value);
  message.keep_alive(keep_alive);
}

/// Nobody is there to read an answer: closed, reset, too slow.
bool is_gone(boost::system::error_code error) {
  return error == http::error::end_of_stream || error == http::error::partial_message ||
         error.category() != make_error_code(http::error::bad_method).category();
}

std::string field(const Request& request, http::field name) { return std::string(request[name]); }

std::optional<HttpResponse> refusal(const Request& request, const std::string& address) {
  if (request.count(http::field::host) > 1 || (request.version() >= 11 && request.count(http::field::host) == 0)) {
    return http_problem(400, "expected one Host header, got " + std::to_string(request.count(http::field::host)));
  }
  const auto sentence = refusal_of(field(request, http::field::host), field(request, http::field::origin), address);
  if (sentence) return http_problem(403, *sentence);
  return std::nullopt;
}

}  // namespace

struct Server::Impl : std::enable_shared_from_this<Server::Impl> {
  Impl(asio::io_context& io, const ServerOptions& options_, Dispatcher& dispatcher_, HttpHandler handler_)
      : options(options_), dispatcher(dispatcher_), handler(std::move(handler_)), acceptor(io) {}

  /// One HTTP connection, known to stop().
  struct Connection {
    explicit Connection(tcp::socket socket) : stream(std::move(socket)) {}
    beast::tcp_stream stream;
    beast::flat_buffer buffer;
    bool busy = false;  // with a request
  };
  struct Registered {  // while a coroutine runs
    Impl& impl;
    std::shared_ptr<Connection> connection;
    Registered(Impl& impl_, std::shared_ptr<Connection> connection_) : impl(impl_), connection(std::move(connection_)) {
      impl.connections.insert(connection);
    }
    ~Registered() { impl.connections.erase(connection); }
    Registered(const Registered&) = delete;
    Registered& operator=(const Registered&) = delete;
  };

  void listen();
  void stop();
  asio::awaitable<void> accept();
  asio::awaitable<void> serve(tcp::socket socket);
  asio::awaitable<bool> receive(std::shared_ptr<Connection> connection, std::shared_ptr<Parser> parser);
  asio::awaitable<bool> reply(std::shared_ptr<Connection> connection, HttpResponse response, unsigned version,
                              bool keep_alive, bool head_only = false);
  asio::awaitable<bool> reply_file(std::shared_ptr<Connection> connection, HttpResponse response, unsigned version, bool keep_alive);
  asio::awaitable<HttpResponse> ask_handler(std::shared_ptr<Connection> connection, Request request);
  void begin_session(Connection& connection, Request request);

  const ServerOptions options;
  Dispatcher& dispatcher;
  HttpHandler handler;
  tcp::acceptor acceptor;
  std::set<std::shared_ptr<Connection>> connections;
  std::vector<std::weak_ptr<WorkerSession>> sessions;
  bool stopping = false;
};

void Server::Impl::listen() {
  boost::system::error_code error;
  const auto address = asio::ip::make_address(options.address, error);
  if (error) throw ConfigError("cannot listen on \"" + options.address + "\": expected an IP address such as 127.0.0.1 or ::1");
  const tcp::endpoint endpoint(address, options.port);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) return;
  const std::string where = options.address + ":" + std::to_string(options.port);
  std::string what_to_do = "choose another address with --listen";
  if (error == asio::error::address_in_use) {
    what_to_do = "another program (another fusiond?) has that port; stop it, or choose another port with --listen (port 0 takes a free one)";
  }
  throw ConfigError("cannot listen on " + where + ": " + error.message() + "; " + what_to_do);
}

void Server::Impl::stop() {
  if (std::exchange(stopping, true)) return;
  boost::system::error_code ignored;
  acceptor.close(ignored);
  for (const auto& connection : connections) {
    if (!connection->busy) connection->stream.close();
  }
  for (const auto& weak : sessions) {
    if (const auto session = weak.lock()) session->close("the daemon shuts down");
  }
}

asio::awaitable<void> Server::Impl::accept() {
  const auto self = shared_from_this();
  while (!stopping) {
    boost::system::error_code error;
    tcp::socket socket = co_await acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
    if (stopping) break;
    if (error || connections.size() >= options.connections) {
      logger("dispatch")->warn("connection not accepted reason={} open={}", log_text(error ? error.message() : "too many"),
                               connections.size());
      asio::steady_timer pause(acceptor.get_executor(), kAcceptPause);
      if (error) co_await pause.async_wait(asio::use_awaitable);
      continue;
    }
    socket.set_option(tcp::no_delay(true), error);
    auto ended = [](std::exception_ptr thrown) {
      try {
        if (thrown) std::rethrow_exception(thrown);
      } catch (const std::exception& e) {
        logger("dispatch")->warn("connection failed reason={}", log_text(e.what()));
      }
    };
    asio::co_spawn(acceptor.get_executor(), serve(std::move(socket)), std::move(ended));
  }
}

asio::awaitable<void> Server::Impl::serve(tcp::socket socket) {
  const auto self = shared_from_this();
  const auto connection = std::make_shared<Connection>(std::move(socket));
  const Registered registered(*this, connection);
  while (!stopping) {
    const auto parser = std::make_shared<Parser>();
    const bool received = co_await receive(connection, parser);
    if (!received) break;
    Request request = parser->release();
    const unsigned version = request.version();
    const bool head_only = request.method() == http::verb::head;
    bool keep_alive = request.keep_alive();
    HttpResponse response;
    if (auto refused = refusal(request, options.address)) {
      response = std::move(*refused);
      keep_alive = false;
    } else if (websocket::is_upgrade(request) && request.target() == kWorkerPath) {
      if (stopping) break;  // nobody would end the session
      begin_session(*connection, std::move(request));
      co_return;
    } else {
      response = co_await ask_handler(connection, std::move(request));
    }
    bool again = false;
    if (response.file.empty()) again = co_await reply(connection, std::move(response), version, keep_alive, head_only);
    else again = co_await reply_file(connection, std::move(response), version, keep_alive);
    if (!again) break;
  }
  boost::system::error_code ignored;
  connection->stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
}

// False if there is nothing to answer (any more).
asio::awaitable<bool> Server::Impl::receive(std::shared_ptr<Connection> connection, std::shared_ptr<Parser> parser) {
  boost::system::error_code error;
  parser->header_limit(options.header_limit);
  parser->body_limit(options.body_limit);
  connection->busy = false;
  connection->stream.expires_after(options.timeout);
  co_await http::async_read_header(connection->stream, connection->buffer, *parser,
                                   asio::redirect_error(asio::use_awaitable, error));
  connection->busy = true;
  connection->stream.expires_after(options.timeout);
  if (!error && beast::iequals(parser->get()[http::field::expect], "100-continue")) {
    http::response<http::empty_body> go_on(http::status::continue_, 11);
    co_await http::async_write(connection->stream, go_on, asio::redirect_error(asio::use_awaitable, error));
  }
  if (!error) {
    co_await http::async_read(connection->stream, connection->buffer, *parser,
                              asio::redirect_error(asio::use_awaitable, error));
  }
  if (!error) co_return true;
  if (!is_gone(error)) {
    HttpResponse response = problem_of(error, options);
    co_await reply(connection, std::move(response), 11, false);
  }
  co_return false;
}

// True if another request may follow.
asio::awaitable<bool> Server::Impl::reply(std::shared_ptr<Connection> connection, HttpResponse response, unsigned version,
                                          bool keep_alive, bool head_only) {
  boost::system::error_code error;
  keep_alive = keep_alive && !stopping;
  http::response<http::string_body> message(static_cast<http::status>(response.status), version);
  set_fields(message, response, keep_alive);
  message.body() = std::move(response.body);
  message.prepare_payload();
  if (head_only) message.body().clear();  // the length stays, as of a GET
  connection->stream.expires_after(options.timeout);
  co_await http::async_write(connection->stream, message, asio::redirect_error(asio::use_awaitable, error));
  co_return !error && keep_alive;
}

// In pieces of some kilobytes, read as the peer takes them; each has the whole time limit.
asio::awaitable<bool> Server::Impl::reply_file(std::shared_ptr<Connection> connection, HttpResponse response, unsigned version,
                                               bool keep_alive) {
  boost::system::error_code error;
  keep_alive = keep_alive && !stopping;
  http::response<http::file_body> message(static_cast<http::status>(response.status), version);
  message.body().open(response.file.c_str(), beast::file_mode::scan, error);
  if (error) {
    logger("dispatch")->error("file not sent path={} reason={}", log_text(response.file), log_text(error.message()));
    HttpResponse problem = http_problem(410, "the file is not there any more: " + response.file);
    const bool again = co_await reply(connection, std::move(problem), version, keep_alive);
    co_return again;
  }
  set_fields(message, response, keep_alive);
  message.prepare_payload();
  http::response_serializer<http::file_body> serializer(message);
  while (!error && !serializer.is_done()) {
    connection->stream.expires_after(options.timeout);
    co_await http::async_write_some(connection->stream, serializer, asio::redirect_error(asio::use_awaitable, error));
  }
  co_return !error && keep_alive;
}

asio::awaitable<HttpResponse> Server::Impl::ask_handler(std::shared_ptr<Connection> connection, Request request) {
  HttpRequest asked;
  if (!read_target(std::string_view(request.target().data(), request.target().size()), asked)) {
    co_return http_problem(400, "the request's target is no decodable absolute path: " + std::string(request.target()));
  }
  if (asked.path == kWorkerPath) {
    co_return http_problem(426, std::string(kWorkerPath) + " is for workers and speaks WebSocket only");
  }
  asked.method = std::string(request.method_string());
  asked.body = std::move(request.body());
  const auto answer = std::make_shared<Answer>(acceptor.get_executor());
  {
    const auto responder = std::make_shared<Responder>(acceptor.get_executor(), answer);
    const auto respond = [responder](HttpResponse response) { responder->post(std::move(response)); };
    try {
      handler(std::move(asked), respond);
    } catch (const std::exception& e) {
      logger("dispatch")->error("request failed target={} reason={}", log_text(std::string(request.target())), log_text(e.what()));
      respond(http_problem(500, std::string("internal error: ") + e.what()));
    }
  }
  connection->stream.expires_never();
  while (!answer->response) {
    boost::system::error_code woken;
    co_await answer->given.async_wait(asio::redirect_error(asio::use_awaitable, woken));
  }
  co_return std::move(*answer->response);
}

void Server::Impl::begin_session(Connection& connection, Request request) {
  std::erase_if(sessions, [](const std::weak_ptr<WorkerSession>& weak) { return weak.expired(); });
  const auto session = std::make_shared<WorkerSession>(std::move(connection.stream), dispatcher, options.sessions);
  sessions.push_back(session);
  session->start(std::move(request));
}

Server::Server(asio::io_context& io, const ServerOptions& options, Dispatcher& dispatcher, HttpHandler handler)
    : impl_(std::make_shared<Impl>(io, options, dispatcher, std::move(handler))) {
  impl_->listen();
  auto ended = [](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const std::exception& e) {
      logger("dispatch")->error("the server accepts no more connections reason={}", log_text(e.what()));
    }
  };
  asio::co_spawn(io, impl_->accept(), std::move(ended));
  logger("dispatch")->info("server started address={} port={}", options.address, port());
}

Server::~Server() { stop(); }

std::uint16_t Server::port() const {
  boost::system::error_code ignored;
  return impl_->acceptor.local_endpoint(ignored).port();
}

void Server::stop() { impl_->stop(); }

}  // namespace fusion
