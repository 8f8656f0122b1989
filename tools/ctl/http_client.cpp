#include "tools/ctl/http_client.h"

#include <algorithm>
#include <exception>
#include <optional>

#include "base/json_reader.h"
#include "base/version.h"
#include "security/credentials.h"
#include "security/tls.h"
#include "tools/ctl/figures.h"
#include "tools/ctl/text.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

constexpr std::uint64_t kLargestAnswer = 512ull << 20;

using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

/// How far an exchange got when it failed: decides whose fault it is and what may have happened.
enum class Phase { connecting, sending, reading };

struct Exchange {
  Url url;
  Request request;
  std::chrono::milliseconds timeout;
  Phase phase = Phase::connecting;
  std::optional<Response> response;
  std::exception_ptr failure;
  std::string file;  ///< where the body of a 2xx answer goes; empty: into the response
  std::shared_ptr<ssl::context> tls{};  ///< null: plain
  DownloadProgress progress{};  ///< of a file
};

constexpr std::uint64_t kLargestFile = 64ull << 30;

asio::awaitable<void> run_exchange(Exchange& exchange) {
  const auto executor = co_await asio::this_coro::executor;
  tcp::resolver resolver(executor);
  const auto endpoints = co_await resolver.async_resolve(exchange.url.host, exchange.url.port, asio::use_awaitable);
  Stream stream(executor);
  stream.transport().expires_after(exchange.timeout);
  co_await stream.transport().async_connect(endpoints, asio::use_awaitable);
  if (exchange.tls) co_await connect_tls(stream, exchange.tls, exchange.url.host, exchange.url.text());
  exchange.phase = Phase::sending;
  co_await http::async_write(stream, exchange.request, asio::use_awaitable);
  exchange.phase = Phase::reading;
  beast::flat_buffer buffer;
  http::response_parser<http::empty_body> head;
  head.body_limit(kLargestFile);
  co_await http::async_read_header(stream, buffer, head, asio::use_awaitable);
  if (exchange.file.empty() || head.get().result_int() >= 300) {
    const auto length = head.content_length();
    if (length && *length > kLargestAnswer) throw boost::system::system_error(beast::error_code(http::error::body_limit));
    http::response_parser<http::string_body> parser(std::move(head));
    parser.body_limit(kLargestAnswer);
    co_await http::async_read(stream, buffer, parser, asio::use_awaitable);
    exchange.response.emplace(parser.release());
    co_return;
  }
  http::response_parser<http::file_body> parser(std::move(head));
  beast::error_code error;
  parser.get().body().open(exchange.file.c_str(), beast::file_mode::write, error);
  if (error) throw DataError(exchange.file + ": cannot be written: " + error.message());
  const std::uint64_t total = parser.content_length().value_or(0);
  while (!parser.is_done()) {
    co_await http::async_read_some(stream, buffer, parser, asio::use_awaitable);
    if (exchange.progress) exchange.progress(total - parser.content_length_remaining().value_or(total), total);
  }
  parser.get().body().close();
  exchange.response.emplace();
  exchange.response->result(parser.get().result());
}

Request make_request(const Url& url, const std::string& method, const std::string& target, const std::string& body,
                     const Credentials& credentials) {
  const bool post = method == "POST";
  Request request(post ? http::verb::post : http::verb::get, url.prefix + target, 11);
  const bool ipv6 = url.host.find(':') != std::string::npos;
  request.set(http::field::host, (ipv6 ? "[" + url.host + "]" : url.host) + ":" + url.port);
  request.set(http::field::user_agent, std::string("fusionctl/") + kCodeVersion);
  request.set(http::field::accept, "application/json");
  if (!credentials.token.empty()) request.set(http::field::authorization, "Bearer " + credentials.token);
  request.keep_alive(false);
  if (post) {
    request.set(http::field::content_type, "application/json");
    request.body() = body;
  }
  request.prepare_payload();
  return request;
}

[[noreturn]] void throw_failure(const Exchange& exchange, const beast::error_code& code) {
  const std::string url = exchange.url.text();
  const bool late = code == beast::error::timeout;
  const std::string limit = duration(std::chrono::duration<double>(exchange.timeout).count());
  if (exchange.phase == Phase::connecting) {
    throw Unreachable(url + " cannot be reached: " + (late ? "no connection within " + limit : code.message()) + ".\n" +
                      "If no daemon runs there, start one with: fusiond --db fusion.db --loopback same_user --local-workers 2");
  }
  const std::string what = std::string(exchange.request.method_string()) + " " + std::string(exchange.request.target());
  std::string sentence;
  if (late) sentence = url + " gave no whole answer to " + what + " within " + limit + ".";
  else if (code == http::error::end_of_stream) sentence = url + " closed the connection without an answer to " + what + ".";
  else if (code == http::error::partial_message) sentence = url + " closed the connection amid the answer to " + what + ".";
  else if (code == http::error::body_limit) sentence = url + " answered " + what + " with more than 512 MiB.";
  else if (code.category() == http::make_error_code(http::error::bad_version).category())
    sentence = url + " answered " + what + " with something that is not HTTP: " + code.message() + ".";
  else sentence = url + " broke the connection during " + what + ": " + code.message() + ".";
  if (exchange.request.method() == http::verb::post) {
    sentence += "\nIt is not known whether the request took effect: look (fusionctl list) before asking again.";
  }
  throw DaemonFailure(sentence);
}

/// The problems of an error's body, a line each; empty if the body is not of the daemon's making.
std::string problems_of(const std::string& body) {
  const json value = json::parse(body, nullptr, false);
  const json* error = member(value, "error");
  if (error == nullptr) return "";
  std::vector<std::string> problems;
  for (const json& problem : list_in(*error, "problems")) {
    if (problem.is_string()) problems.push_back(one_line(problem.get<std::string>()));
  }
  return join_problems(problems);
}

}  // namespace

Url Url::parse(std::string_view text) {
  const auto wrong = [&] {
    return ConfigError("--url: expected http://HOST[:PORT][/PREFIX] or https://HOST[:PORT][/PREFIX], got \"" + one_line(text) + "\"");
  };
  constexpr std::string_view kPlain = "http://", kSecure = "https://";
  const bool secure = text.starts_with(kSecure);
  if (!secure && !text.starts_with(kPlain)) throw wrong();
  std::string_view rest = text.substr(secure ? kSecure.size() : kPlain.size());
  if (rest.find_first_of(" \t\r\n?#@") != std::string_view::npos) throw wrong();
  Url url;
  url.tls = secure;
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  url.prefix = rest.substr(slash);
  while (!url.prefix.empty() && url.prefix.back() == '/') url.prefix.pop_back();
  rest = rest.substr(0, slash);
  const bool bracketed = !rest.empty() && rest[0] == '[';
  const std::size_t closing = bracketed ? rest.find(']') : std::string_view::npos;
  if (bracketed && closing == std::string_view::npos) throw wrong();
  const std::size_t colon = rest.find(':', bracketed ? closing : 0);
  url.host = bracketed ? rest.substr(1, closing - 1) : rest.substr(0, std::min(colon, rest.size()));
  url.port = colon == std::string_view::npos ? "7878" : std::string(rest.substr(colon + 1));
  const bool digits = !url.port.empty() && url.port.size() <= 5 &&
                      url.port.find_first_not_of("0123456789") == std::string::npos;
  const bool stray = bracketed && colon != closing + 1 && closing + 1 != rest.size();
  if (url.host.empty() || !digits || stray || std::stoi(url.port) < 1 || std::stoi(url.port) > 65535) throw wrong();
  return url;
}

std::string Url::text() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  return (tls ? "https://" : "http://") + (ipv6 ? "[" + host + "]" : host) + ":" + port + prefix;
}

const json& Answer::object(std::string_view key) const {
  const json* found = member(value, key);
  if (found != nullptr && found->is_object()) return *found;
  throw DaemonFailure("The answer has no object \"" + std::string(key) + "\": is it fusiond that listens there?");
}

const json& Answer::list(std::string_view key) const {
  const json* found = member(value, key);
  if (found != nullptr && found->is_array()) return *found;
  throw DaemonFailure("The answer has no list \"" + std::string(key) + "\": is it fusiond that listens there?");
}

namespace {

/// Runs it to its end, and throws for whatever is no 2xx. Returns who answered what, for sentences.
std::string run_whole(Exchange& exchange) {
  asio::io_context context{1};
  asio::co_spawn(context, run_exchange(exchange), [&](std::exception_ptr failure) { exchange.failure = failure; });
  context.run();
  if (exchange.failure) {
    try {
      std::rethrow_exception(exchange.failure);
    } catch (const boost::system::system_error& error) {
      throw_failure(exchange, error.code());
    }
  }
  const Response& response = *exchange.response;
  const unsigned status = response.result_int();
  const Request& request = exchange.request;
  const std::string answered = exchange.url.text() + " answered " + std::string(request.method_string()) + " " +
                               std::string(request.target()).substr(exchange.url.prefix.size()) + " with " + std::to_string(status) + " " +
                               one_line(std::string_view(response.reason().data(), response.reason().size()));
  if (status >= 400) {
    const std::string problems = problems_of(response.body());
    if (status < 500) throw Refused(status, problems.empty() ? answered + " and no sentence why." : problems);
    throw DaemonFailure(problems.empty() ? answered + "." : answered + ":\n" + problems);
  }
  if (status < 200 || status > 299) throw DaemonFailure(answered + ", which is no answer of fusiond.");
  return answered;
}

}  // namespace

HttpClient::HttpClient(Url url, std::chrono::milliseconds timeout, Credentials credentials)
    : url_(std::move(url)), timeout_(timeout), credentials_(std::move(credentials)) {
  require_hidden_token(credentials_.token, url_.tls, url_.host, url_.text());
}

void HttpClient::download(const std::string& target, const std::filesystem::path& file, const DownloadProgress& progress) const {
  Exchange exchange{url_, make_request(url_, "GET", target, "", credentials_), timeout_, Phase::connecting, std::nullopt, nullptr, file.string()};
  exchange.progress = progress;
  if (url_.tls) exchange.tls = client_tls(credentials_.ca_file);
  run_whole(exchange);
}

Answer HttpClient::exchange(const std::string& method, const std::string& target, const std::string& body) const {
  Exchange exchange{url_, make_request(url_, method, target, body, credentials_), timeout_, Phase::connecting, std::nullopt, nullptr, ""};
  if (url_.tls) exchange.tls = client_tls(credentials_.ca_file);
  const std::string answered = run_whole(exchange);
  const Response& response = *exchange.response;
  try {
    Answer answer{response.body(), parse_json(response.body(), "the answer")};
    if (answer.value.is_object()) return answer;
  } catch (const ConfigError& error) {
    throw DaemonFailure(answered + ", but " + error.what() + ".");
  }
  throw DaemonFailure(answered + ", but the answer is not a JSON object: is it fusiond that listens there?");
}

}  // namespace fusion::ctl
