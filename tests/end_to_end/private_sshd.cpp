#include "tests/end_to_end/private_sshd.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "base/files.h"

namespace fusion::testing {

namespace fs = std::filesystem;

namespace {

std::string user_name() {
  const passwd* user = ::getpwuid(::geteuid());
  return user != nullptr ? user->pw_name : "root";
}

}  // namespace

int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

std::string PrivateSshd::missing() {
  for (const char* program : {"/usr/sbin/sshd", "/usr/bin/ssh", "/usr/bin/ssh-keygen"}) {
    if (!fs::exists(program)) return std::string(program) + " is not there (apt-get install openssh-server, which also starts one of the system's own)";
  }
  if (::geteuid() == 0 && !fs::exists("/usr/bin/unshare")) return "/usr/bin/unshare is not there";
  return "";
}

PrivateSshd::PrivateSshd(fs::path folder) : folder_(std::move(folder)), port_(free_port()) {
  fs::create_directories(home() / "bin");
  for (const char* key : {"host_key", "key"}) {
    const Finished made = run({"/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", (folder_ / key).string()}, {folder_, {}});
    EXPECT_EQ(made.status, 0) << made.err;
  }
  fs::copy_file(folder_ / "key.pub", folder_ / "authorized_keys");
  write_configuration();
  std::vector<std::string> command{"/usr/sbin/sshd", "-D", "-e", "-f", (folder_ / "sshd_config").string()};
  // For root it wants /run/sshd, which the system's own makes when it starts: this one gets a /run of its own.
  if (::geteuid() == 0) {
    command = {"/usr/bin/unshare", "--mount", "--", "/bin/sh", "-c", "mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec \"$@\"", "sh", "/usr/sbin/sshd", "-D",
               "-e", "-f", (folder_ / "sshd_config").string()};
  }
  daemon_ = std::make_unique<Process>(command, Process::Options{folder_, {}});
  Finished told;
  for (int i = 0; i < 300 && daemon_->running(); ++i) {
    told = run(ssh({}, "echo \"$HOME\""), {folder_, {}});
    if (told.status == 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  EXPECT_EQ(told.out, home().string() + "\n") << told.err << daemon_->err();
}

void PrivateSshd::write_configuration() const {
  const std::string at = folder_.string();
  write_atomically(folder_ / "sshd_config", "Port " + std::to_string(port_) + "\nListenAddress 127.0.0.1\nHostKey " + at + "/host_key\nAuthorizedKeysFile " + at +
                                                "/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
                                                "PermitRootLogin prohibit-password\nPidFile none\nSetEnv HOME=" + home().string() + " PATH=" +
                                                home().string() + "/bin:/usr/bin:/bin\nForceCommand cd \"$HOME\" && exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"\n");
}

std::vector<std::string> PrivateSshd::ssh(const std::vector<std::string>& options, const std::string& command) const {
  std::vector<std::string> line{"/usr/bin/ssh", "-F", "none", "-p", std::to_string(port_), "-i", (folder_ / "key").string(), "-o", "IdentitiesOnly=yes",
                                "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"};
  line.insert(line.end(), options.begin(), options.end());
  line.push_back(user_name() + "@127.0.0.1");
  if (!command.empty()) line.push_back(command);
  return line;
}

}  // namespace fusion::testing
