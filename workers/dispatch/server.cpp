#include "workers/dispatch/server.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "security/peer_user.h"
#include "security/stream.h"
#include "workers/dispatch/byte_range.h"
#include "workers/dispatch/connection_table.h"
#include "workers/dispatch/dispatcher.h"
#include "workers/dispatch/file_part.h"
#include "workers/dispatch/log_text.h"

namespace fusion {

namespace {

using Request = http::request<http::string_body>;
using Parser = http::request_parser<http::string_body>;

constexpr const char* kWorkerPath = "/api/v1/worker";
constexpr std::chrono::milliseconds kAcceptPause{100};  // when the system has no descriptor left, and nobody can go
constexpr std::chrono::seconds kGoodBye{1};             // for the end of a TLS connection, and for what a refused peer still sends
constexpr std::size_t kMostDropped = 256u << 10;        // bytes of it
constexpr unsigned char kTlsHandshake = 22;             // first byte of a connection that speaks TLS
constexpr std::size_t kMostRoutes = 1000;               // counted apart, with their statuses; bounds memory whatever a handler calls a route
const Access kOwnUserOnly;

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

AskedOfFile asked_of_file(const Request& request) {
  return {request.version(), request.keep_alive(), request.method() == http::verb::head, field(request, http::field::range),
          field(request, http::field::if_range)};
}

/// What is wrong with a head that was let in only because of where it comes from: a browser may have been misused.
std::optional<HttpResponse> misuse(const Request& request, const ServerOptions& options) {
  const auto sentence = refusal_of(field(request, http::field::host), field(request, http::field::origin), options.address,
                                   options.tls ? "https" : "http");
  if (sentence) return http_problem(403, *sentence);
  return std::nullopt;
}

HttpResponse refusal(const Admission& admission) {
  HttpResponse response = http_problem(admission.refused, admission.sentence);
  if (admission.refused == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer realm=\"fusiond\"");
  return response;
}

bool is_upgrade(const Request& request) { return websocket::is_upgrade(request) && request.target() == kWorkerPath; }

}  // namespace

struct Server::Impl : std::enable_shared_from_this<Server::Impl> {
  Impl(asio::io_context& io, const ServerOptions& options_, Dispatcher& dispatcher_, HttpHandler handler_)
      : options(options_),
        access(options_.access != nullptr ? *options_.access : kOwnUserOnly),
        dispatcher(dispatcher_),
        handler(std::move(handler_)),
        acceptor(io),
        table(std::make_shared<ConnectionTable>(options_)) {
    options.sessions.frame_limit = options.frame_limit;
    options.sessions.hello_limit = options.hello_limit;
    options.sessions.outbox_limit = options.outbox_limit;
    options.sessions.uncommitted = options.uncommitted;
  }

  /// One HTTP connection, known to stop().
  struct Connection {
    explicit Connection(tcp::socket socket) : stream(std::move(socket)) {}
    beast::tcp_stream& transport() { return stream.transport(); }
    void set(ConnectionTable::State state) {
      busy = state == ConnectionTable::State::busy;
      slot->set(state);
    }
    Stream stream;
    beast::flat_buffer buffer;
    Peer peer;
    std::shared_ptr<ConnectionTable> table;  // outlives the slot
    std::unique_ptr<ConnectionTable::Slot> slot;
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
  /// A request that was read, as far as it was let in.
  struct Received {
    Request request;
    Admission admission;
    HttpRequest asked;                    // its path and query
    std::optional<HttpResponse> refused;  // to be answered with, and the connection closed
    bool nothing = false;                 // nobody is there to be answered
  };

  void listen();
  void stop();
  asio::awaitable<void> accept();
  void accepted(tcp::socket socket);
  asio::awaitable<void> serve(std::shared_ptr<Connection> connection);
  asio::awaitable<void> serve_requests(std::shared_ptr<Connection> connection);
  asio::awaitable<bool> begin_tls(std::shared_ptr<Connection> connection);
  asio::awaitable<void> say_good_bye(std::shared_ptr<Connection> connection);
  asio::awaitable<void> drop_the_rest(std::shared_ptr<Connection> connection);
  asio::awaitable<void> receive(std::shared_ptr<Connection> connection, std::shared_ptr<Parser> parser, std::shared_ptr<Received> received);
  asio::awaitable<boost::system::error_code> receive_body(std::shared_ptr<Connection> connection, std::shared_ptr<Parser> parser);
  void admit(Connection& connection, const Request& head, Received& received);
  asio::awaitable<bool> reply(std::shared_ptr<Connection> connection, HttpResponse response, unsigned version,
                              bool keep_alive, bool head_only = false);
  asio::awaitable<bool> reply_file(std::shared_ptr<Connection> connection, HttpResponse response, AskedOfFile asked);
  asio::awaitable<HttpResponse> ask_handler(std::shared_ptr<Connection> connection, HttpRequest asked);
  void begin_session(Connection& connection, Request request, const std::string& token_id);
  void count(const HttpResponse& response);

  ServerOptions options;
  const Access& access;
  Dispatcher& dispatcher;
  HttpHandler handler;
  tcp::acceptor acceptor;
  std::shared_ptr<ConnectionTable> table;
  std::set<std::shared_ptr<Connection>> connections;
  std::vector<std::weak_ptr<WorkerSession>> sessions;
  std::uint64_t unauthorized = 0, forbidden = 0;
  std::map<std::pair<std::string, int>, std::uint64_t> requests;  // answers by route and status
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
    if (!connection->busy) connection->transport().close();
  }
  for (const auto& entry : sessions) {
    if (const auto session = entry.lock()) session->close("the daemon shuts down");
  }
}

asio::awaitable<void> Server::Impl::accept() {
  const auto self = shared_from_this();
  while (!stopping) {
    boost::system::error_code error;
    tcp::socket socket = co_await acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
    if (stopping) break;
    if (!error) {
      accepted(std::move(socket));
      continue;
    }
    const bool made_room = table->evict_one();
    logger("dispatch")->warn("connection not accepted reason={} open={} made_room={}", log_text(error.message()), table->size(), made_room);
    asio::steady_timer pause(acceptor.get_executor(), kAcceptPause);
    if (!made_room) co_await pause.async_wait(asio::use_awaitable);
  }
}

void Server::Impl::accepted(tcp::socket socket) {
  boost::system::error_code error;
  const tcp::endpoint remote = socket.remote_endpoint(error);
  if (error) return;  // gone already
  const auto connection = std::make_shared<Connection>(std::move(socket));
  connection->peer.loopback = is_loopback(remote.address());
  connection->table = table;
  connection->slot = table->admit(connection->peer.loopback ? "" : remote.address().to_string(),
                                  [raw = connection.get()] { raw->transport().close(); });
  if (!connection->slot) {
    logger("dispatch")->warn("connection refused reason=\"too many\" peer={} open={}", remote.address().to_string(), table->size());
    return;
  }
  tcp::socket& accepted_socket = connection->transport().socket();
  if (connection->peer.loopback && access.rule() == LoopbackRule::same_user) {
    connection->peer.user = peer_user(accepted_socket.local_endpoint(error), remote);
  }
  accepted_socket.set_option(tcp::no_delay(true), error);
  auto ended = [](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const std::exception& e) {
      logger("dispatch")->warn("connection failed reason={}", log_text(e.what()));
    }
  };
  asio::co_spawn(acceptor.get_executor(), serve(connection), std::move(ended));
}

asio::awaitable<void> Server::Impl::serve(std::shared_ptr<Connection> connection) {
  const auto self = shared_from_this();
  const Registered registered(*this, connection);
  if (options.tls) {
    const bool begun = co_await begin_tls(connection);
    if (!begun) co_return;
  }
  co_await serve_requests(connection);
}

// Answers plain HTTP, which somebody sends who took https:// for http://, with a sentence. False if the connection is of no use.
asio::awaitable<bool> Server::Impl::begin_tls(std::shared_ptr<Connection> connection) {
  boost::system::error_code error;
  const auto first = std::make_shared<std::array<char, 4096>>();
  connection->transport().expires_after(options.handshake);
  const std::size_t bytes =
      co_await connection->transport().async_read_some(asio::buffer(*first), asio::redirect_error(asio::use_awaitable, error));
  if (error || bytes == 0) co_return false;
  if (static_cast<unsigned char>(first->front()) != kTlsHandshake) {
    HttpResponse response = http_problem(400, "this port speaks TLS; ask for https:// in place of http://");
    co_await reply(connection, std::move(response), 11, false);
    co_await drop_the_rest(connection);
    co_return false;
  }
  auto& tls = connection->stream.begin_tls(options.tls);
  const asio::const_buffer said = asio::buffer(first->data(), bytes);
  co_await tls.async_handshake(ssl::stream_base::server, said, asio::redirect_error(asio::use_awaitable, error));
  co_return !error;
}

asio::awaitable<void> Server::Impl::serve_requests(std::shared_ptr<Connection> connection) {
  while (!stopping) {
    const auto parser = std::make_shared<Parser>();
    const auto received = std::make_shared<Received>();
    co_await receive(connection, parser, received);
    if (received->nothing) break;
    const unsigned version = received->request.version();
    const bool head_only = received->request.method() == http::verb::head;
    AskedOfFile asked_of = asked_of_file(received->request);
    bool keep_alive = received->request.keep_alive();
    HttpResponse response;
    if (received->refused) {
      response = std::move(*received->refused);  // `refused` stays engaged
      keep_alive = false;
    } else if (is_upgrade(received->request)) {
      if (stopping) break;  // nobody would end the session
      begin_session(*connection, std::move(received->request), received->admission.token_id);
      co_return;
    } else {
      response = co_await ask_handler(connection, std::move(received->asked));
    }
    count(response);
    bool again = false;
    if (response.file.empty()) again = co_await reply(connection, std::move(response), version, keep_alive, head_only);
    else again = co_await reply_file(connection, std::move(response), std::move(asked_of));
    if (received->refused) co_await drop_the_rest(connection);
    if (!again) break;
    connection->set(ConnectionTable::State::idle);
  }
  co_await say_good_bye(connection);
}

asio::awaitable<void> Server::Impl::say_good_bye(std::shared_ptr<Connection> connection) {
  boost::system::error_code ignored;
  if (connection->stream.is_tls() && connection->transport().socket().is_open()) {
    connection->transport().expires_after(kGoodBye);
    co_await connection->stream.tls().async_shutdown(asio::redirect_error(asio::use_awaitable, ignored));
  }
  connection->transport().socket().shutdown(tcp::socket::shutdown_send, ignored);
}

// A socket that is closed with bytes unread is reset, and its peer may lose the answer that says why.
asio::awaitable<void> Server::Impl::drop_the_rest(std::shared_ptr<Connection> connection) {
  boost::system::error_code error;
  connection->transport().socket().shutdown(tcp::socket::shutdown_send, error);
  connection->transport().expires_after(kGoodBye);
  const auto bytes = std::make_shared<std::array<char, 4096>>();
  for (std::size_t dropped = 0; !error && dropped < kMostDropped;) {
    dropped += co_await connection->transport().async_read_some(asio::buffer(*bytes), asio::redirect_error(asio::use_awaitable, error));
  }
}

// The head, the decision, and only then the body.
asio::awaitable<void> Server::Impl::receive(std::shared_ptr<Connection> connection, std::shared_ptr<Parser> parser,
                                            std::shared_ptr<Received> received) {
  boost::system::error_code error;
  parser->header_limit(options.header_limit);
  parser->body_limit(options.body_limit);
  connection->busy = false;
  connection->transport().expires_after(options.timeout);
  co_await http::async_read_header(connection->stream, connection->buffer, *parser,
                                   asio::redirect_error(asio::use_awaitable, error));
  if (!error) {
    admit(*connection, parser->get(), *received);
    if (received->refused) {
      received->request = parser->release();
      co_return;
    }
    connection->set(ConnectionTable::State::busy);
    error = co_await receive_body(connection, parser);
  }
  if (!error) {
    received->request = parser->release();
    received->asked.method = std::string(received->request.method_string());
    received->asked.body = std::move(received->request.body());
  } else if (is_gone(error)) {
    received->nothing = true;
  } else {
    received->refused = problem_of(error, options);
  }
}

asio::awaitable<boost::system::error_code> Server::Impl::receive_body(std::shared_ptr<Connection> connection, std::shared_ptr<Parser> parser) {
  boost::system::error_code error;
  connection->transport().expires_after(options.timeout);
  if (beast::iequals(parser->get()[http::field::expect], "100-continue")) {
    http::response<http::empty_body> go_on(http::status::continue_, 11);
    co_await http::async_write(connection->stream, go_on, asio::redirect_error(asio::use_awaitable, error));
  }
  if (!error) {
    co_await http::async_read(connection->stream, connection->buffer, *parser, asio::redirect_error(asio::use_awaitable, error));
  }
  co_return error;
}

void Server::Impl::admit(Connection& connection, const Request& head, Received& received) {
  const std::size_t hosts = head.count(http::field::host);
  if (hosts > 1 || (head.version() >= 11 && hosts == 0)) {
    received.refused = http_problem(400, "expected one Host header, got " + std::to_string(hosts));
    return;
  }
  if (!read_target(std::string_view(head.target().data(), head.target().size()), received.asked)) {
    received.refused = http_problem(400, "the request's target is no decodable absolute path: " + std::string(head.target()));
    return;
  }
  const std::string authorization = field(head, http::field::authorization), method(head.method_string());
  received.admission = access.admit(authorization, method, received.asked.path, connection.peer);
  received.asked.known = received.admission.known;
  received.asked.token_id = received.admission.token_id;
  if (received.admission.refused != 0) {
    ++(received.admission.refused == 401 ? unauthorized : forbidden);
    logger("dispatch")->debug("request refused status={} method={} path={}", received.admission.refused, log_text(method), log_text(received.asked.path));
    received.refused = refusal(received.admission);
  } else if (received.admission.known && received.admission.token_id.empty()) {
    received.refused = misuse(head, options);
  }
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
  connection->transport().expires_after(options.timeout);
  co_await http::async_write(connection->stream, message, asio::redirect_error(asio::use_awaitable, error));
  co_return !error && keep_alive;
}

// In pieces of some kilobytes, read as the peer takes them; each has the whole time limit.
asio::awaitable<bool> Server::Impl::reply_file(std::shared_ptr<Connection> connection, HttpResponse response, AskedOfFile asked) {
  boost::system::error_code error;
  const bool keep_alive = asked.keep_alive && !stopping;
  FilePart::value_type part;
  part.open(response.file, error);
  if (error) {
    logger("dispatch")->error("file not sent path={} reason={}", log_text(response.file), log_text(error.message()));
    HttpResponse problem = http_problem(410, "the file is not there any more: " + response.file);
    const bool again = co_await reply(connection, std::move(problem), asked.version, keep_alive, asked.head_only);
    co_return again;
  }
  const ByteRange range = choose_range(response, asked, part.size);
  part.begin = range.begin;
  part.bytes = range.bytes;
  http::response<FilePart> message(std::piecewise_construct, std::make_tuple(std::move(part)),
                                   std::make_tuple(static_cast<http::status>(response.status), asked.version));
  set_fields(message, response, keep_alive);
  message.prepare_payload();
  http::response_serializer<FilePart> serializer(message);
  serializer.split(asked.head_only);
  while (!error && !(asked.head_only ? serializer.is_header_done() : serializer.is_done())) {
    connection->transport().expires_after(options.timeout);
    co_await http::async_write_some(connection->stream, serializer, asio::redirect_error(asio::use_awaitable, error));
  }
  co_return !error && keep_alive;
}

asio::awaitable<HttpResponse> Server::Impl::ask_handler(std::shared_ptr<Connection> connection, HttpRequest asked) {
  if (asked.path == kWorkerPath) {
    co_return http_problem(426, std::string(kWorkerPath) + " is for workers and speaks WebSocket only");
  }
  const std::string path = asked.path;
  const auto answer = std::make_shared<Answer>(acceptor.get_executor());
  {
    const auto responder = std::make_shared<Responder>(acceptor.get_executor(), answer);
    const auto respond = [responder](HttpResponse response) { responder->post(std::move(response)); };
    try {
      handler(std::move(asked), respond);
    } catch (const std::exception& e) {
      logger("dispatch")->error("request failed path={} reason={}", log_text(path), log_text(e.what()));
      respond(http_problem(500, std::string("internal error: ") + e.what()));
    }
  }
  connection->transport().expires_never();
  while (!answer->response) {
    boost::system::error_code woken;
    co_await answer->given.async_wait(asio::redirect_error(asio::use_awaitable, woken));
  }
  co_return std::move(*answer->response);
}

void Server::Impl::count(const HttpResponse& response) {
  std::pair<std::string, int> kind{response.route.empty() ? "other" : response.route, response.status};
  if (requests.size() >= kMostRoutes && !requests.contains(kind)) kind.first = "other";
  ++requests[kind];
}

void Server::Impl::begin_session(Connection& connection, Request request, const std::string& token_id) {
  ++requests[{"GET /api/v1/worker", 101}];
  std::erase_if(sessions, [](const auto& entry) { return entry.expired(); });
  connection.slot->set(ConnectionTable::State::session);
  struct Place {  // in this order destroyed: the slot before the table
    std::shared_ptr<ConnectionTable> table;
    std::unique_ptr<ConnectionTable::Slot> slot;
  };
  const auto place = std::make_shared<Place>();
  place->table = connection.table;
  place->slot = std::move(connection.slot);
  const auto session = std::make_shared<WorkerSession>(std::move(connection.stream), dispatcher, options.sessions, token_id, place);
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
  logger("dispatch")->info("server started address={} port={} tls={} loopback={} tokens={}", options.address, port(), options.tls != nullptr,
                           name_of(impl_->access.rule()), impl_->access.tokens());
}

Server::~Server() { stop(); }

std::uint16_t Server::port() const {
  boost::system::error_code ignored;
  return impl_->acceptor.local_endpoint(ignored).port();
}

ServerCounts Server::counts() const {
  using State = ConnectionTable::State;
  const ConnectionTable& table = *impl_->table;
  std::uint64_t frames = 0;
  for (const auto& entry : impl_->sessions) {
    if (const auto session = entry.lock()) frames += session->frames_read();
  }
  return {table.size(), table.count(State::unproven), table.count(State::session), frames, table.evicted(), table.refused(),
          impl_->unauthorized, impl_->forbidden, impl_->requests};
}

std::size_t Server::close_revoked() {
  std::size_t closed = 0;
  for (const auto& entry : impl_->sessions) {
    const auto session = entry.lock();
    if (!session || impl_->access.is_valid(session->token_id())) continue;
    session->refuse("the token of this worker was revoked");
    ++closed;
  }
  return closed;
}

void Server::stop() { impl_->stop(); }

}  // namespace fusion
