#include "security/security_config.h"

#include "base/json_reader.h"
#include "security/peer_user.h"

namespace fusion {

SecurityConfig SecurityConfig::read(JsonReader& reader, SecurityConfig c) {
  JsonReader tls = reader.object("tls");
  c.certificate = tls.text("certificate", c.certificate);
  c.key = tls.text("key", c.key);
  if (c.certificate.empty() != c.key.empty()) {
    reader.fail("tls", "expected both \"certificate\" and \"key\", or neither; `fusionctl certs --out DIR --host NAME` makes them");
  }
  tls.finish();
  c.tokens = reader.text("tokens", c.tokens);
  if (reader.has("loopback")) c.loopback = reader.choice<LoopbackRule>("loopback", LoopbackRule::same_user);
  return c;
}

void SecurityConfig::write(nlohmann::json& document) const {
  document["tls"] = nlohmann::json::object();
  if (has_tls()) document["tls"] = {{"certificate", certificate}, {"key", key}};
  document["tokens"] = tokens;
  document["loopback"] = name_of(rule());
}

void SecurityConfig::check_served() const {
  if (!tokens.empty() || rule() == LoopbackRule::same_user) return;
  throw ConfigError("loopback: nobody could be served, for there is no file of tokens, and processes of your own user are let in without one by your choice "
                    "only; choose that by --loopback same_user (or \"loopback\": \"same_user\" in the configuration), or make a token with `fusionctl tokens add "
                    "--role submit --name NAME --file FILE` and start with --tokens FILE");
}

void SecurityConfig::check_address(const std::string& text) const {
  boost::system::error_code error;
  const auto address = asio::ip::make_address(text, error);
  if (error) throw ConfigError("listen: \"" + text + "\" is no IP address; expected one such as 127.0.0.1, 0.0.0.0 or [::1]");
  if (is_loopback(address)) return;
  std::string missing;
  if (!has_tls()) missing = "TLS (`fusionctl certs --out DIR --host NAME`, then --tls-certificate and --tls-key, or key \"tls\")";
  if (tokens.empty()) {
    missing += std::string(missing.empty() ? "" : " and ") +
               "tokens (`fusionctl tokens add --role submit --name NAME --file FILE`, then --tokens FILE, or key \"tokens\")";
  }
  if (missing.empty()) return;
  throw ConfigError("listen: \"" + text + "\" is not a loopback address; others are served with TLS and tokens only, and there is no " + missing +
                    "; or stay on loopback and reach it through ssh -L");
}

}  // namespace fusion
