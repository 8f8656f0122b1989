#include "tools/pool_token.h"

#include "base/error.h"
#include "security/access.h"
#include "security/credentials.h"

namespace fusion {

std::string pool_token_problem(const Access& access, const std::string& token_file) {
  std::string token;
  try {
    token = token_to_show(token_file);
  } catch (const Error& error) {
    return std::string("token_file: ") + error.what();
  }
  const Admission admission = access.admit("Bearer " + token, "GET", "/api/v1/worker", Peer{});
  if (admission.refused == 0) return "";
  const std::string why = admission.refused == 403 ? admission.sentence : "its token is not known to this daemon, or was revoked";
  return "token_file " + token_file + ": " + why + "; nothing is launched until it holds a valid one of role worker (fusionctl tokens add)";
}

}  // namespace fusion
