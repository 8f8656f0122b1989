#include "workers/client/blob_fetcher.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <exception>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/asio.h"
#include "base/log.h"
#include "base/version.h"
#include "security/stream.h"
#include "security/tls.h"
#include "workers/client/daemon_http.h"
#include "workers/client/worker_condition.h"

namespace fusion {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kLook{100};
constexpr std::size_t kPiece = 256u << 10;
constexpr std::uint64_t kLongestProblem = 64u << 10;

/// Of "bytes 100-199/1000": where the part begins and how long the whole is.
std::optional<std::pair<std::uint64_t, std::uint64_t>> read_content_range(std::string_view text) {
  constexpr std::string_view kUnit = "bytes ";
  const std::size_t dash = text.find('-'), slash = text.find('/');
  if (!text.starts_with(kUnit) || dash == std::string_view::npos || slash == std::string_view::npos || slash < dash) return std::nullopt;
  const std::string_view first = text.substr(kUnit.size(), dash - kUnit.size()), whole = text.substr(slash + 1);
  std::uint64_t begin = 0, size = 0;
  if (std::from_chars(first.data(), first.data() + first.size(), begin).ec != std::errc{}) return std::nullopt;
  if (std::from_chars(whole.data(), whole.data() + whole.size(), size).ec != std::errc{}) return std::nullopt;
  return std::pair{begin, size};
}

void write_all(int file, const char* data, std::size_t bytes, std::uint64_t at) {
  while (bytes > 0) {
    const ssize_t wrote = ::pwrite(file, data, bytes, static_cast<off_t>(at));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) throw DataError(std::string("a fetched file cannot be written: ") + std::strerror(errno));
    data += wrote;
    at += static_cast<std::uint64_t>(wrote);
    bytes -= static_cast<std::size_t>(wrote);
  }
}

}  // namespace

struct BlobFetcher::Trust {
  std::shared_ptr<ssl::context> tls;  // null: plain
};

/// One request and its answer.
struct BlobFetcher::Attempt {
  Attempt(asio::io_context& io_, const BlobFetcherOptions& options_, std::shared_ptr<ssl::context> tls_)
      : io(io_), options(options_), tls(std::move(tls_)), resolver(io), stream(io) {}

  asio::awaitable<void> run();
  asio::awaitable<void> connect();
  asio::awaitable<void> read_problem();
  asio::awaitable<void> read_body();
  void settle(const http::response<http::buffer_body>& head);

  asio::io_context& io;
  const BlobFetcherOptions& options;
  std::shared_ptr<ssl::context> tls;
  tcp::resolver resolver;
  Stream stream;
  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  const Source* source = nullptr;
  int file = -1;
  const Hooks* hooks = nullptr;
  std::uint64_t have = 0, received = 0;
  std::string refusal;   // the daemon does not give it: trying again will not help
  std::string trouble;   // it may be better the next time
  bool whole = false;
};

asio::awaitable<void> BlobFetcher::Attempt::connect() {
  const auto endpoints = co_await resolver.async_resolve(options.url.host, options.url.port, asio::use_awaitable);
  stream.transport().expires_after(options.silence);
  co_await stream.transport().async_connect(endpoints, asio::use_awaitable);
  if (tls) co_await connect_tls(stream, tls, options.url.host, options.url.text());
}

asio::awaitable<void> BlobFetcher::Attempt::run() {
  co_await connect();
  const std::string target = options.url.prefix + source->target;
  http::request<http::empty_body> request(http::verb::get, target, 11);
  request.set(http::field::host, options.url.authority());
  request.set(http::field::user_agent, std::string("fusion-worker/") + kCodeVersion);
  if (!options.token.empty()) request.set(http::field::authorization, "Bearer " + options.token);
  if (have > 0) {
    request.set(http::field::range, "bytes=" + std::to_string(have) + "-");
    if (!source->tag.empty()) request.set(http::field::if_range, "\"" + source->tag + "\"");
  }
  request.keep_alive(false);
  stream.transport().expires_after(options.silence);
  co_await http::async_write(stream, request, asio::use_awaitable);
  parser.body_limit(UINT64_MAX);
  co_await http::async_read_header(stream, buffer, parser, asio::use_awaitable);
  const unsigned status = parser.get().result_int();
  if (status != 200 && status != 206) {
    co_await read_problem();
    co_return;
  }
  settle(parser.get());
  if (trouble.empty()) co_await read_body();
}

// Where the answer begins, and whether the file must begin anew for it.
void BlobFetcher::Attempt::settle(const http::response<http::buffer_body>& head) {
  std::uint64_t begin = 0, size = parser.content_length().value_or(0);
  if (head.result() == http::status::partial_content) {
    const auto range = read_content_range(std::string(head[http::field::content_range]));
    if (!range || range->first != have) {
      trouble = "the daemon sent another part than was asked for";
      return;
    }
    begin = range->first;
    size = range->second;
  }
  if (begin != have && ::ftruncate(file, 0) != 0) throw DataError(std::string("a fetched file cannot begin anew: ") + std::strerror(errno));
  have = begin;
  if (hooks->on_size) hooks->on_size(size);
}

asio::awaitable<void> BlobFetcher::Attempt::read_body() {
  std::vector<char> piece(kPiece);
  while (!parser.is_done()) {
    parser.get().body().data = piece.data();
    parser.get().body().size = piece.size();
    stream.transport().expires_after(options.silence);
    boost::system::error_code error;
    co_await http::async_read_some(stream, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
    const std::size_t got = piece.size() - parser.get().body().size;
    write_all(file, piece.data(), got, have);
    have += got;
    received += got;
    if (error == http::error::need_buffer) error = {};
    if (error) throw boost::system::system_error(error);
  }
  whole = true;
}

// A status that says why there is nothing.
asio::awaitable<void> BlobFetcher::Attempt::read_problem() {
  const unsigned status = parser.get().result_int();
  std::string body(kLongestProblem, '\0');
  parser.get().body().data = body.data();
  parser.get().body().size = body.size();
  stream.transport().expires_after(options.silence);
  boost::system::error_code ended;
  co_await http::async_read(stream, buffer, parser, asio::redirect_error(asio::use_awaitable, ended));
  body.resize(body.size() - parser.get().body().size);
  const std::string why = problem_of({status, body});
  const std::string there(parser.get()[http::field::content_range]);
  if (status == 416 && have > 0 && there == "bytes */" + std::to_string(have)) {  // nothing is missing: only the end of the last fetch was
    whole = true;
  } else if (status == 416) {  // what is here is longer than what is there
    if (::ftruncate(file, 0) != 0) throw DataError(std::string("a fetched file cannot begin anew: ") + std::strerror(errno));
    have = 0;
    trouble = why;
  } else if (status >= 500 || status == 408 || status == 429) {
    trouble = why;
  } else {
    refusal = why;
  }
}

BlobFetcher::BlobFetcher(BlobFetcherOptions options) : options_(std::move(options)), trust_(std::make_unique<Trust>()) {
  if (options_.url.tls) trust_->tls = client_tls(options_.ca_file);
}

BlobFetcher::~BlobFetcher() = default;

// True when the file is whole. The coroutine runs here; ten times a second this looks up.
bool BlobFetcher::try_once(Attempt& attempt, const Hooks& hooks) {
  bool ended = false, stopped = false;
  std::exception_ptr failure;
  auto work = [&attempt] { return attempt.run(); };
  auto done = [&](std::exception_ptr error) {
    failure = error;
    ended = true;
  };
  asio::co_spawn(attempt.io, std::move(work), std::move(done));
  while (!ended) {
    attempt.io.run_for(kLook);
    attempt.io.restart();
    if (ended || stopped || !hooks.stopped || !hooks.stopped()) continue;
    stopped = true;
    attempt.resolver.cancel();
    attempt.stream.transport().close();
  }
  received_ += attempt.received;
  if (stopped) throw FetchStopped();
  try {
    if (failure) std::rethrow_exception(failure);
  } catch (const boost::system::system_error& error) {
    attempt.trouble = error.code().message();
  } catch (const ConfigError& error) {  // its certificate cannot be trusted
    throw UnreadableData(error.what());
  }
  if (!attempt.refusal.empty()) {
    throw UnreadableData("the daemon at " + options_.url.text() + " does not give " + attempt.source->name + ": " + attempt.refusal);
  }
  return attempt.whole;
}

void BlobFetcher::fetch(const std::string& digest, int file, const Hooks& hooks) {
  fetch(Source{"/api/v1/blobs/" + digest, "blob " + digest, digest}, file, hooks);
}

void BlobFetcher::fetch(const Source& source, int file, const Hooks& hooks) {
  auto brought = steady_clock::now();
  milliseconds pause = options_.backoff_min;
  for (bool told = false;;) {
    struct stat state {};
    if (::fstat(file, &state) != 0) throw DataError(std::string("a fetched file cannot be looked at: ") + std::strerror(errno));
    asio::io_context io{1};
    Attempt attempt(io, options_, trust_->tls);
    attempt.source = &source;
    attempt.file = file;
    attempt.hooks = &hooks;
    attempt.have = static_cast<std::uint64_t>(state.st_size);
    if (try_once(attempt, hooks)) return;
    if (attempt.received > 0) {
      brought = steady_clock::now();
      pause = options_.backoff_min;
    } else if (steady_clock::now() - brought > options_.patience) {
      throw UnreadableData("nothing of " + source.name + " came from the daemon at " + options_.url.text() + " for " +
                           std::to_string(std::chrono::duration_cast<std::chrono::seconds>(options_.patience).count()) +
                           " s (" + attempt.trouble + "); it is tried again later, from byte " + std::to_string(attempt.have) + " on");
    }
    logger("worker")->log(std::exchange(told, true) ? spdlog::level::debug : spdlog::level::warn,
                          "fetch interrupted, trying again and again what=\"{}\" have_bytes={} reason=\"{}\"", source.name, attempt.have, attempt.trouble);
    for (const auto until = steady_clock::now() + pause; steady_clock::now() < until;) {
      if (hooks.stopped && hooks.stopped()) throw FetchStopped();
      std::this_thread::sleep_for(std::min<milliseconds>(kLook, pause));
    }
    if (attempt.received == 0) pause = std::min(2 * pause, options_.backoff_max);
  }
}

}  // namespace fusion
