#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tests/end_to_end/system.h"

namespace fusion::testing {

/// An IPv4 address of this machine that is not loopback; empty where it has none.
std::string outer_address();

/// What docs/security.md has people make for a daemon on a network, made with fusionctl in a system's folder: an authority and a certificate,
/// and a token each for people (which fusionctl of the system then shows) and for workers, in files of mode 0600.
class Secrets {
 public:
  /// A certificate for these names; the first is where the daemon listens.
  Secrets(System& system, std::vector<std::string> hosts);

  /// Of fusiond, for System::start.
  std::map<std::string, std::string> daemon_options() const;
  std::filesystem::path ca() const { return folder_ / "tls/ca.pem"; }
  std::filesystem::path worker_token_file() const { return folder_ / "worker.token"; }
  /// The part of the workers' token that nobody may see.
  std::string worker_secret() const;
  /// A new token for workers, in the file.
  void renew_worker_token();
  /// The workers' token is not valid any more.
  void revoke_worker_token();

 private:
  std::string add_token(const std::string& role);
  void write_secret(const std::filesystem::path& file, const std::string& text) const;

  System& system_;
  std::filesystem::path folder_;
  std::string host_;
};

/// Regular files below a folder that have this text in them, relative to it.
std::vector<std::string> files_with(const std::filesystem::path& folder, const std::string& text);
/// Processes of this machine that have this text in their command line.
std::vector<std::string> command_lines_with(const std::string& text);

}  // namespace fusion::testing
