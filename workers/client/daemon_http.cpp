#include "workers/client/daemon_http.h"

#include <chrono>
#include <exception>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/asio.h"
#include "base/version.h"
#include "security/stream.h"
#include "security/tls.h"

namespace fusion {

namespace {

using Request = http::request<http::string_body>;

constexpr std::chrono::milliseconds kLook{100};
constexpr std::uint64_t kLongestReply = 16u << 20;

}  // namespace

struct DaemonHttp::Impl {
  explicit Impl(const BlobFetcherOptions& given) : options(given) {
    if (options.url.tls) tls = client_tls(options.ca_file);
  }
  /// What lasts as long as a connection.
  struct Line {
    explicit Line(asio::io_context& io) : resolver(io), stream(io) {}
    tcp::resolver resolver;
    Stream stream;
    beast::flat_buffer buffer;
    bool used = false;
  };
  asio::awaitable<void> connect(std::shared_ptr<Line> line);
  asio::awaitable<void> exchange(std::shared_ptr<Line> line, std::shared_ptr<Request> request, std::shared_ptr<HttpReply> reply);
  HttpReply run(const std::shared_ptr<Request>& request, const std::function<bool()>& stopped);

  BlobFetcherOptions options;
  std::shared_ptr<ssl::context> tls;
  asio::io_context io{1};
  std::shared_ptr<Line> kept;
};

asio::awaitable<void> DaemonHttp::Impl::connect(std::shared_ptr<Line> line) {
  const auto endpoints = co_await line->resolver.async_resolve(options.url.host, options.url.port, asio::use_awaitable);
  line->stream.transport().expires_after(options.silence);
  co_await line->stream.transport().async_connect(endpoints, asio::use_awaitable);
  boost::system::error_code ignored;
  line->stream.transport().socket().set_option(tcp::no_delay(true), ignored);
  if (tls) co_await connect_tls(line->stream, tls, options.url.host, options.url.text());
}

asio::awaitable<void> DaemonHttp::Impl::exchange(std::shared_ptr<Line> line, std::shared_ptr<Request> request, std::shared_ptr<HttpReply> reply) {
  if (!line->used) co_await connect(line);
  line->used = true;
  line->stream.transport().expires_after(options.silence);
  // What refuses a request may answer before it has read all of it, and close: then the answer counts, not that the rest could not be sent.
  boost::system::error_code unsent;
  co_await http::async_write(line->stream, *request, asio::redirect_error(asio::use_awaitable, unsent));
  http::response_parser<http::string_body> parser;
  parser.body_limit(kLongestReply);
  line->stream.transport().expires_after(options.silence);
  co_await http::async_read(line->stream, line->buffer, parser, asio::use_awaitable);
  reply->status = parser.get().result_int();
  reply->body = std::move(parser.get().body());
  if (!unsent && parser.get().keep_alive()) kept = line;
}

DaemonHttp::DaemonHttp(const BlobFetcherOptions& options) : impl_(std::make_unique<Impl>(options)) {}

DaemonHttp::~DaemonHttp() = default;

// The coroutine runs here; ten times a second this looks up.
HttpReply DaemonHttp::Impl::run(const std::shared_ptr<Request>& request, const std::function<bool()>& stopped) {
  std::shared_ptr<Line> line = std::exchange(kept, nullptr);
  if (!line) line = std::make_shared<Line>(io);
  const bool reused = line->used;
  const auto reply = std::make_shared<HttpReply>();
  bool ended = false, stop = false;
  std::exception_ptr failure;
  auto work = [this, line, request, reply] { return exchange(line, request, reply); };
  auto done = [&](std::exception_ptr error) {
    failure = error;
    ended = true;
  };
  asio::co_spawn(io, std::move(work), std::move(done));
  while (!ended) {
    io.restart();
    io.run_for(kLook);
    if (ended || stop || !stopped || !stopped()) continue;
    stop = true;
    line->resolver.cancel();
    line->stream.transport().close();
  }
  if (stop) throw FetchStopped();
  try {
    if (failure) std::rethrow_exception(failure);
  } catch (const boost::system::system_error& error) {
    if (reused) return run(request, stopped);
    throw NoAnswer("the daemon at " + options.url.text() + " did not answer: " + error.code().message());
  }
  return std::move(*reply);
}

HttpReply DaemonHttp::ask(const std::string& method, const std::string& target, std::string body, const std::function<bool()>& stopped) {
  const auto request = std::make_shared<Request>();
  request->method_string(method);
  request->target(impl_->options.url.prefix + target);
  request->version(11);
  request->set(http::field::host, impl_->options.url.authority());
  request->set(http::field::user_agent, std::string("fusion-worker/") + kCodeVersion);
  if (!impl_->options.token.empty()) request->set(http::field::authorization, "Bearer " + impl_->options.token);
  request->body() = std::move(body);
  request->prepare_payload();
  return impl_->run(request, stopped);
}

std::string problem_of(const HttpReply& reply) {
  const auto document = nlohmann::json::parse(reply.body, nullptr, false);
  std::string text;
  if (document.is_object() && document.contains("error") && document["error"].is_object()) {
    for (const auto& problem : document["error"].value("problems", nlohmann::json::array())) {
      if (problem.is_string()) text += (text.empty() ? "" : "; ") + problem.get<std::string>();
    }
  }
  return text.empty() ? "it answered with status " + std::to_string(reply.status) : text;
}

}  // namespace fusion
