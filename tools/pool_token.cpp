#include "tools/pool_token.h"

#include <utility>

#include "base/error.h"
#include "security/access.h"
#include "security/credentials.h"

namespace fusion {

// What the token is worth is asked where the table of tokens lives, by the one that is valid when the file has been read.
void PoolTokens::check(const std::string& token_file, Say say) {
  asio::post(reading_, [this, token_file, say = std::move(say)]() mutable {
    std::string token, unreadable;
    try {
      token = token_to_show(token_file);
    } catch (const Error& error) {
      unreadable = std::string("token_file: ") + error.what();
    }
    asio::post(io_, [this, token_file, token, unreadable, say = std::move(say)] {
      say(unreadable.empty() ? problem(token_file, token) : unreadable);
    });
  });
}

std::string PoolTokens::problem(const std::string& token_file, const std::string& token) const {
  const Admission admission = access_.admit("Bearer " + token, "GET", "/api/v1/worker", Peer{});
  if (admission.refused == 0) return "";
  const std::string why = admission.refused == 403 ? admission.sentence : "its token is not known to this daemon, or was revoked";
  return "token_file " + token_file + ": " + why + "; nothing is launched until it holds a valid one of role worker (fusionctl tokens add)";
}

}  // namespace fusion
