#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "security/access.h"

namespace fusion {

class JsonReader;

/// The keys `tls`, `tokens` and `loopback` of a daemon's configuration (configs/README.md).
struct SecurityConfig {
  std::string certificate, key;          ///< of TLS, PEM; both or none
  std::string tokens;                    ///< the tokens file; empty: no tokens
  std::optional<LoopbackRule> loopback;  ///< absent: `token`, so somebody must have chosen to go without

  bool has_tls() const { return !certificate.empty() || !key.empty(); }
  LoopbackRule rule() const { return loopback.value_or(LoopbackRule::token); }
  /// Reads the three keys of `reader` over `base`. Problems go to the reader, which its caller finishes.
  static SecurityConfig read(JsonReader& reader, SecurityConfig base);
  void write(nlohmann::json& document) const;

  /// Throws ConfigError where nobody could be served, there being neither tokens nor `same_user`: it says what to write.
  void check_served() const;
  /// Throws ConfigError for an address that is none, and for one that is not loopback unless there are TLS and tokens: it says what to do.
  void check_address(const std::string& address) const;
};

}  // namespace fusion
