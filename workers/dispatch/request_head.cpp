#include "workers/dispatch/request_head.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace fusion {

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

/// "[::1]:80" -> "::1", "localhost:80" -> "localhost"
std::string host_name(std::string_view host) {
  if (!host.empty() && host.front() == '[') return lower(host.substr(1, host.find(']') - 1));
  return lower(host.substr(0, host.find(':')));
}

}  // namespace

HttpResponse http_problem(int status, const std::string& sentence) {
  const nlohmann::json body = {{"error", {{"problems", {sentence}}}}};
  HttpResponse response;
  response.status = status;
  response.body = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return response;
}

std::optional<std::string> percent_decoded(std::string_view text, bool plus_is_blank) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '+' && plus_is_blank) c = ' ';
    if (c == '%') {
      const int high = i + 1 < text.size() ? hex_digit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (c == '\0') return std::nullopt;
    decoded.push_back(c);
  }
  return decoded;
}

bool read_target(std::string_view target, HttpRequest& request) {
  target = target.substr(0, target.find('#'));
  const std::size_t mark = target.find('?');
  const auto path = percent_decoded(target.substr(0, mark), false);
  if (!path || path->empty() || path->front() != '/') return false;
  request.path = *path;
  std::string_view rest = mark == std::string_view::npos ? "" : target.substr(mark + 1);
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    if (pair.empty()) continue;
    const std::size_t equals = pair.find('=');
    const auto key = percent_decoded(pair.substr(0, equals), true);
    const auto value = percent_decoded(equals == std::string_view::npos ? "" : pair.substr(equals + 1), true);
    if (!key || !value) return false;
    request.query[*key] = *value;
  }
  return true;
}

std::optional<std::string> refusal_of(std::string_view host, std::string_view origin, std::string_view bound_address,
                                      std::string_view scheme) {
  const std::string name = host_name(host);
  if (!host.empty() && name != "localhost" && name != "127.0.0.1" && name != "::1" && name != lower(bound_address)) {
    return "the Host header names \"" + std::string(host) + "\"; this server answers to localhost, 127.0.0.1, [::1] and " +
           std::string(bound_address);
  }
  if (!origin.empty() && lower(origin) != std::string(scheme) + "://" + lower(host)) {
    return "the request comes from a page of \"" + std::string(origin) + "\"; only pages of this server may send requests";
  }
  return std::nullopt;
}

}  // namespace fusion
