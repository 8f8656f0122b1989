#include "tests/end_to_end/secrets.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "base/files.h"

namespace fusion::testing {

namespace fs = std::filesystem;

namespace {

/// Whatever can be read of it: files of /proc may vanish, and have no size.
std::string text_of(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return std::move(text).str();
}

}  // namespace

std::string outer_address() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return "";
  std::string found;
  for (const ifaddrs* at = list; at != nullptr && found.empty(); at = at->ifa_next) {
    if (at->ifa_addr == nullptr || at->ifa_addr->sa_family != AF_INET || (at->ifa_flags & IFF_LOOPBACK) != 0 || (at->ifa_flags & IFF_UP) == 0) continue;
    char text[INET_ADDRSTRLEN] = {};
    const auto* address = reinterpret_cast<const sockaddr_in*>(at->ifa_addr);
    if (::inet_ntop(AF_INET, &address->sin_addr, text, sizeof text) != nullptr) found = text;
  }
  ::freeifaddrs(list);
  return found;
}

Secrets::Secrets(System& system, std::vector<std::string> hosts) : system_(system), folder_(system.folder().path()), host_(hosts.at(0)) {
  std::vector<std::string> command{"certs", "--out", (folder_ / "tls").string()};
  for (const std::string& host : hosts) command.insert(command.end(), {"--host", host});
  const Finished made = system_.ctl(command);
  EXPECT_EQ(made.status, 0) << made.err;
  write_secret(folder_ / "submit.token", add_token("submit"));
  renew_worker_token();
  system_.tell_ctl({{"FUSION_CA", ca().string()}, {"FUSION_TOKEN_FILE", (folder_ / "submit.token").string()}});
}

std::map<std::string, std::string> Secrets::daemon_options() const {
  const std::string certificate = (folder_ / "tls" / host_).string();
  return {{"--listen", host_ + ":0"},
          {"--loopback", "token"},
          {"--tls-certificate", certificate + ".pem"},
          {"--tls-key", certificate + "-key.pem"},
          {"--tokens", (folder_ / "tokens.json").string()}};
}

std::string Secrets::add_token(const std::string& role) {
  const Finished made = system_.ctl({"tokens", "add", "--file", (folder_ / "tokens.json").string(), "--role", role, "--name", role});
  EXPECT_EQ(made.status, 0) << made.err;
  return made.out.substr(0, made.out.find('\n'));
}

void Secrets::write_secret(const fs::path& file, const std::string& text) const {
  write_atomically(file, text + "\n");
  fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
}

void Secrets::renew_worker_token() { write_secret(worker_token_file(), add_token("worker")); }

// "fusion_<id>_<secret>"
std::string Secrets::worker_secret() const {
  std::string token = read_text(worker_token_file());
  token.pop_back();
  return token.substr(token.rfind('_') + 1);
}

void Secrets::revoke_worker_token() {
  const std::string token = read_text(worker_token_file());
  const std::size_t begin = token.find('_') + 1;
  const Finished revoked = system_.ctl({"tokens", "revoke", token.substr(begin, token.rfind('_') - begin), "--file", (folder_ / "tokens.json").string()});
  EXPECT_EQ(revoked.status, 0) << revoked.err;
}

std::vector<std::string> files_with(const fs::path& folder, const std::string& text) {
  std::vector<std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && text_of(entry.path()).find(text) != std::string::npos) found.push_back(entry.path().lexically_relative(folder).string());
  }
  std::ranges::sort(found);
  return found;
}

std::vector<std::string> command_lines_with(const std::string& text) {
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    if (entry.path().filename().string().find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string line = text_of(entry.path() / "cmdline");
    if (line.find(text) != std::string::npos) found.push_back(line);
  }
  return found;
}

}  // namespace fusion::testing
