#include "security/credentials.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "security/peer_user.h"
#include "security/private_file.h"

namespace fusion {

namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

}  // namespace

std::string token_to_show(const std::filesystem::path& given) {
  std::string token, source = "FUSION_TOKEN";
  if (given.empty()) token = environment("FUSION_TOKEN");
  const std::filesystem::path file = given.empty() && token.empty() ? std::filesystem::path(environment("FUSION_TOKEN_FILE")) : given;
  if (!file.empty()) {
    source = file.string();
    token = read_private(file, "a token");
    token = token.substr(0, token.find_first_of("\r\n"));
  }
  const bool printable = std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < 127; });
  if (!printable) throw ConfigError(source + ": the token has a blank or a character outside ASCII");
  return token;
}

std::string ca_file_or_environment(const std::string& given) {
  return given.empty() ? environment("FUSION_CA") : given;
}

void require_hidden_token(const std::string& token, bool tls, const std::string& host, const std::string& url) {
  if (token.empty() || tls || host == "localhost") return;
  boost::system::error_code error;
  const auto address = asio::ip::make_address(host, error);
  if (!error && is_loopback(address)) return;
  throw ConfigError("the token is not sent to " + url + ": without TLS everybody on the way could read it; use https:// (fusionctl certs), or reach "
                    "the daemon through ssh -L");
}

}  // namespace fusion
