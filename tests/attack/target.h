#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "security/tokens.h"
#include "tests/temporary_folder.h"

namespace fusion::attack {

/// A fusiond to be attacked: a real process with TLS, tokens of every role, nobody let in without one, small features below its one data root, and
/// beside that root files that must never be seen. Serves all addresses of this machine. Killed with this.
class Target {
 public:
  /// `fusiond` is the program. `limits` goes into its configuration as it is. Throws DataError if it does not get ready.
  Target(const std::filesystem::path& fusiond, const nlohmann::json& limits);
  ~Target();
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  std::uint16_t port() const { return port_; }
  std::string ca() const { return (folder_ / "tls/ca.pem").string(); }
  std::filesystem::path root() const { return folder_ / "root"; }
  /// Outside the root: has features.json, as legal as that in the root, and secret.txt, which says kSecret.
  std::filesystem::path outside() const { return folder_ / "outside"; }
  static constexpr const char* kSecret = "never-to-be-seen";

  std::string read, submit, worker, other_worker, revoked;  ///< tokens, each of the role it names
  /// Takes a token out of the file; the daemon notices by itself.
  void revoke(const std::string& token);

  bool running();
  double resident_mb() const { return status_mb("VmRSS:"); }
  double peak_mb() const { return status_mb("VmHWM:"); }
  /// Open connections and other descriptors of the daemon now.
  std::size_t descriptors() const;
  std::string log() const;

 private:
  double status_mb(const std::string& field) const;
  void write_files(const nlohmann::json& limits);
  void start(const std::filesystem::path& fusiond);
  std::string make(Role role, const std::string& name);

  testing::TemporaryFolder folder_;
  TokenTable tokens_;
  std::uint16_t port_ = 0;
  pid_t pid_ = -1;
};

}  // namespace fusion::attack
