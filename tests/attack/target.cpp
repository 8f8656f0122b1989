#include "tests/attack/target.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "security/certificates.h"
#include "tests/end_to_end/small_features.h"

namespace fusion::attack {

namespace fs = std::filesystem;

Target::Target(const fs::path& fusiond, const nlohmann::json& limits) {
  write_files(limits);
  start(fusiond);
}

Target::~Target() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

std::string Target::make(Role role, const std::string& name) {
  const IssuedToken issued = issue_token(role, name, 1);
  tokens_.add(issued.record);
  return issued.text;
}

void Target::write_files(const nlohmann::json& limits) {
  testing::write_small_features(root() / "features");
  testing::write_small_features(outside());
  write_atomically(outside() / "secret.txt", kSecret);
  fs::create_directory_symlink(outside(), root() / "link");
  CertificateOrder order;
  order.folder = folder_ / "tls";
  order.hosts = {"target"};
  const CertificateFiles files = make_certificates(order);
  read = make(Role::read, "reader");
  submit = make(Role::submit, "submitter");
  worker = make(Role::worker, "honest");
  other_worker = make(Role::worker, "liar");
  revoked = make(Role::worker, "to be revoked");
  tokens_.save(folder_ / "tokens.json");
  const nlohmann::json config = {{"db", (folder_ / "fusion.db").string()},
                                 {"listen", "0.0.0.0:0"},
                                 {"port_file", (folder_ / "port").string()},
                                 {"data_roots", {root().string()}},
                                 {"tls", {{"certificate", files.certificate.string()}, {"key", files.key.string()}}},
                                 {"tokens", (folder_ / "tokens.json").string()},
                                 {"loopback", "token"},
                                 {"log_level", "debug"},
                                 {"limits", limits}};
  write_atomically(folder_ / "daemon.json", config.dump(2));
}

void Target::start(const fs::path& fusiond) {
  const std::string program = fusiond.string(), config = (folder_ / "daemon.json").string(), log_file = (folder_ / "log").string();
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int log_fd = ::open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(log_fd, STDERR_FILENO);
    ::dup2(log_fd, STDOUT_FILENO);
    ::execl(program.c_str(), program.c_str(), "--config", config.c_str(), static_cast<char*>(nullptr));
    ::_exit(127);
  }
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!fs::exists(folder_ / "port")) {
    if (!running() || std::chrono::steady_clock::now() > limit) throw DataError(program + " did not get ready; it said: " + log());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  port_ = static_cast<std::uint16_t>(std::stoi(read_text(folder_ / "port")));
}

void Target::revoke(const std::string& token) {
  const auto record = tokens_.find(token);
  if (!record) throw ConfigError("that token is not in the file");
  tokens_.remove(record->id);
  tokens_.save(folder_ / "tokens.json");
}

bool Target::running() {
  if (pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
  return pid_ > 0;
}

std::string Target::log() const { return fs::exists(folder_ / "log") ? read_text(folder_ / "log") : ""; }

double Target::status_mb(const std::string& field) const {
  std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with(field)) return std::stod(line.substr(field.size())) / 1024;
  }
  return 0;
}

std::size_t Target::descriptors() const {
  std::error_code error;
  std::size_t count = 0;
  for (fs::directory_iterator entry("/proc/" + std::to_string(pid_) + "/fd", error), end; !error && entry != end; entry.increment(error)) ++count;
  return count;
}

}  // namespace fusion::attack
