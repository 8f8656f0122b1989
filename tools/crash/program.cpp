#include "tools/crash/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <system_error>
#include <thread>

namespace fusion {

namespace {

/// In the child: does not return.
[[noreturn]] void become(char* const* arguments, const char* folder, const char* log) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int output = ::open(log, O_CREAT | O_APPEND | O_WRONLY, 0644);
  const int input = ::open("/dev/null", O_RDONLY);
  if (output >= 0 && input >= 0 && ::chdir(folder) == 0) {
    ::dup2(input, STDIN_FILENO);
    ::dup2(output, STDOUT_FILENO);
    ::dup2(output, STDERR_FILENO);
    ::execv(arguments[0], arguments);
  }
  ::_exit(127);
}

}  // namespace

Program::Program(const std::vector<std::string>& command, const std::filesystem::path& folder, const std::filesystem::path& log) {
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ < 0) throw std::system_error(errno, std::generic_category(), "fork");
  if (pid_ == 0) become(arguments.data(), folder.c_str(), log.c_str());
}

Program::~Program() {
  if (status()) return;
  signal(SIGKILL);
  wait(std::chrono::seconds(30));
}

void Program::signal(int number) const {
  if (!status_) ::kill(pid_, number);
}

std::optional<int> Program::status() {
  int raw = 0;
  if (!status_ && ::waitpid(pid_, &raw, WNOHANG) == pid_) status_ = WIFSIGNALED(raw) ? 128 + WTERMSIG(raw) : WEXITSTATUS(raw);
  return status_;
}

std::optional<int> Program::wait(std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!status() && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return status_;
}

ProcessCost cost_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return {};
  std::istringstream fields(text.substr(name_end + 1));
  std::vector<std::string> words;
  for (std::string word; fields >> word;) words.push_back(word);
  if (words.size() < 22) return {};  // proc(5): fields 14, 15 and 24; the first of these words is field 3
  const double ticks = std::stod(words[11]) + std::stod(words[12]);
  return {ticks / static_cast<double>(::sysconf(_SC_CLK_TCK)), std::stod(words[21]) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20)};
}

}  // namespace fusion
