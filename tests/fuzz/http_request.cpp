#include "base/asio.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/targets.h"
#include "workers/dispatch/request_head.h"

namespace fusion::fuzz {

// What the server does with the bytes of a connection, but for the sockets.
void http_request(std::string_view bytes) {
  http::request_parser<http::string_body> parser;
  parser.header_limit(8u << 10);
  parser.body_limit(8u << 20);
  parser.eager(true);
  boost::system::error_code error;
  for (std::size_t at = 0; at < bytes.size() && !parser.is_done() && !error;) {
    const std::size_t used = parser.put(asio::buffer(bytes.data() + at, bytes.size() - at), error);
    if (used == 0) break;
    at += used;
  }
  if (error || !parser.is_header_done()) return;
  const auto& request = parser.get();
  const auto text = [](boost::beast::string_view view) { return std::string_view(view.data(), view.size()); };
  refusal_of(text(request[http::field::host]), text(request[http::field::origin]), "127.0.0.1");
  HttpRequest read;
  if (!read_target(text(request.target()), read)) return;
  expect(!read.path.empty() && read.path[0] == '/', "a path begins with a slash");
  expect(read.path.find('\0') == std::string::npos, "a path has no zero byte");
}

}  // namespace fusion::fuzz
