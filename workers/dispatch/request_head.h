#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fusion {

/// A request as a handler sees it.
struct HttpRequest {
  std::string method;                        ///< "GET", "POST", ... upper case
  std::string path;                          ///< percent-decoded, begins with '/'
  std::map<std::string, std::string> query;  ///< percent-decoded, '+' is a blank; of a key that stands twice the last counts
  std::string body;
  bool known = true;                         ///< false: sent by who knows whom, to be told nothing secret (security/access.h)
  std::string token_id{};                    ///< of the token that was shown; empty for the daemon's own user and for nobody
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::string file{};  ///< if there is one, its bytes are sent in place of the body, piece by piece
  std::vector<std::pair<std::string, std::string>> headers{};
  std::shared_ptr<const void> keep{};  ///< lives until the answer was sent, or cannot be sent: what owns the file
  std::string route{};  ///< what is counted as one kind of request ("GET /api/v1/studies/:id"); of few values
};

/// {"error": {"problems": [sentence]}}: how every error is answered.
HttpResponse http_problem(int status, const std::string& sentence);

/// Splits a request target ("/api/v1/trials?limit=5") into path and query; false if it is no absolute path or not decodable.
bool read_target(std::string_view target, HttpRequest& request);

/// "%41+b" -> "A b"; nullopt for a broken escape or a zero byte. `plus_is_blank` as in queries.
std::optional<std::string> percent_decoded(std::string_view text, bool plus_is_blank);

/// Whether a browser may be misused to send this: a page of another site can name any Host that its own DNS resolves to us, and
/// any page can post to us, but it cannot forge Origin. Returns the sentence of a refusal, or nothing.
/// `host`: the Host header ("" if absent); allowed are localhost, 127.0.0.1, [::1] and `bound_address`, any port.
/// `origin`: the Origin header ("" if absent); if there is one, it must be this server's own: `scheme`, then the host.
std::optional<std::string> refusal_of(std::string_view host, std::string_view origin, std::string_view bound_address,
                                      std::string_view scheme = "http");

}  // namespace fusion
