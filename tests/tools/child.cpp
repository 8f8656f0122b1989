#include "tests/tools/child.h"

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include "base/files.h"

namespace fusion::testing {

namespace {

std::string program() {
  const char* folder = std::getenv("FUSION_BIN_DIR");
  return std::string(folder != nullptr ? folder : "build/release/bin") + "/fusionctl";
}

std::vector<std::string> environment_of(const ChildSetting& setting) {
  std::map<std::string, std::string> values;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::size_t equals = text.find('=');
    if (equals != std::string::npos) values[text.substr(0, equals)] = text.substr(equals + 1);
  }
  values.erase("FUSION_URL");
  values.erase("NO_COLOR");
  values["TERM"] = "xterm";
  for (const auto& [name, value] : setting.environment) values[name] = value;
  std::vector<std::string> entries;
  for (const auto& [name, value] : values) entries.push_back(name + "=" + value);
  return entries;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (std::string& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

/// Everything a child needs, made before fork().
struct Image {
  Image(const std::vector<std::string>& arguments, const ChildSetting& setting)
      : path(std::filesystem::absolute(program()).string()), words{path}, entries(environment_of(setting)), folder(setting.folder) {
    words.insert(words.end(), arguments.begin(), arguments.end());
    argv = pointers(words);
    envp = pointers(entries);
  }
  [[noreturn]] void become() {
    ::close_range(3, ~0u, 0);  // the sockets of this test's servers among them
    if (!folder.empty() && ::chdir(folder.c_str()) != 0) ::_exit(126);
    ::execve(path.c_str(), argv.data(), envp.data());
    ::_exit(127);
  }
  std::string path;
  std::vector<std::string> words, entries;
  std::string folder;
  std::vector<char*> argv, envp;
};

int status_of(int raw) { return WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw); }

}  // namespace

Child::Child(const std::vector<std::string>& arguments, const ChildSetting& setting) {
  write_atomically(files_ / "in", setting.input);
  Image image(arguments, setting);
  const std::string in = files_ / "in", out = files_ / "out", err = files_ / "err";
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("fork failed");
  if (pid_ > 0) return;
  ::dup2(::open(in.c_str(), O_RDONLY), STDIN_FILENO);
  ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDOUT_FILENO);
  ::dup2(::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
  image.become();
}

Child::~Child() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

bool Child::ended() {
  if (pid_ <= 0) return true;
  int raw = 0;
  if (::waitpid(pid_, &raw, WNOHANG) != pid_) return false;
  status_ = status_of(raw);
  pid_ = -1;
  return true;
}

ChildResult Child::wait() {
  if (pid_ > 0) {
    int raw = 0;
    ::waitpid(pid_, &raw, 0);
    status_ = status_of(raw);
    pid_ = -1;
  }
  return {status_, out(), err()};
}

std::string Child::out() const { return std::filesystem::exists(files_ / "out") ? read_text(files_ / "out") : ""; }
std::string Child::err() const { return std::filesystem::exists(files_ / "err") ? read_text(files_ / "err") : ""; }

bool Child::wait_for(const std::string& file, const std::string& text) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (std::chrono::steady_clock::now() < limit) {
    const bool over = ended();
    if ((file == "out" ? out() : err()).find(text) != std::string::npos) return true;
    if (over) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

bool Child::wait_for_err(const std::string& text) { return wait_for("err", text); }
bool Child::wait_for_out(const std::string& text) { return wait_for("out", text); }

ChildResult run_fusionctl(const std::vector<std::string>& arguments, const ChildSetting& setting) {
  return Child(arguments, setting).wait();
}

ChildResult run_on_terminal(const std::vector<std::string>& arguments, int columns, int lines, const ChildSetting& setting) {
  Image image(arguments, setting);
  winsize size{};
  size.ws_col = static_cast<unsigned short>(columns);
  size.ws_row = static_cast<unsigned short>(lines);
  int master = -1;
  const pid_t pid = ::forkpty(&master, nullptr, nullptr, &size);
  if (pid < 0) throw std::runtime_error("forkpty failed");
  if (pid == 0) image.become();
  ChildResult result;
  std::array<char, 4096> bytes{};
  while (true) {  // ends with EIO when the child has closed its side
    const ssize_t count = ::read(master, bytes.data(), bytes.size());
    if (count <= 0) break;
    result.out.append(bytes.data(), static_cast<std::size_t>(count));
  }
  ::close(master);
  int raw = 0;
  ::waitpid(pid, &raw, 0);
  result.status = status_of(raw);
  return result;
}

}  // namespace fusion::testing
