#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tests/end_to_end/process.h"

namespace fusion::testing {

/// A port of loopback that the kernel gave out a moment ago, and hardly gives out again so soon.
int free_port();

/// An sshd of one test's own on a loopback port, with keys made for it, which lets in this user. For who logs in HOME is a folder of the test, and
/// PATH begins with bin/ in it. Nothing of the system's ssh is used: no key, no known host, no configuration.
class PrivateSshd {
 public:
  /// Why there can be none here; empty where there can.
  static std::string missing();

  /// Everything lies in `folder`, which must be there. Fails the test where it does not let this user in.
  explicit PrivateSshd(std::filesystem::path folder);

  std::filesystem::path home() const { return folder_ / "home"; }
  /// `ssh OPTIONS HOST COMMAND`; without a command where that is empty.
  std::vector<std::string> ssh(const std::vector<std::string>& options, const std::string& command) const;

 private:
  void write_configuration() const;

  std::filesystem::path folder_;
  int port_ = 0;
  std::unique_ptr<Process> daemon_;
};

}  // namespace fusion::testing
