#include "tests/end_to_end/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

namespace fusion::testing {

namespace {

std::string text_of(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::ostringstream text;
  text << stream.rdbuf();
  return std::move(text).str();
}

}  // namespace

Process::Process(std::vector<std::string> command, const Options& options) {
  static std::atomic<int> counter{0};
  const std::string name = std::filesystem::path(command[0]).filename().string() + "-" + std::to_string(counter++);
  out_ = options.folder / (name + ".out");
  err_ = options.folder / (name + ".err");
  std::vector<char*> arguments;
  for (std::string& argument : command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    const int out = ::open(out_.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0644);
    const int err = ::open(err_.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0644);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(err, STDERR_FILENO);
    if (::chdir(options.folder.c_str()) != 0) ::_exit(126);
    for (const auto& [key, value] : options.environment) ::setenv(key.c_str(), value.c_str(), 1);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
}

Process::~Process() {
  if (!ended_ && pid_ > 0) {
    ::kill(pid_, SIGKILL);
    reap(true);
  }
}

bool Process::reap(bool block) {
  if (ended_) return true;
  int status = 0;
  if (::waitpid(pid_, &status, block ? 0 : WNOHANG) != pid_) return false;
  ended_ = true;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return true;
}

bool Process::running() { return !reap(false); }

void Process::signal(int number) {
  if (running()) ::kill(pid_, number);
}

int Process::wait(std::chrono::seconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!reap(false)) {
    if (std::chrono::steady_clock::now() > end) {
      ADD_FAILURE() << "the process did not end in time; its stderr:\n" << err();
      signal(SIGKILL);
      reap(true);
      return -1;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return status_;
}

std::string Process::out() const { return text_of(out_); }
std::string Process::err() const { return text_of(err_); }

std::vector<pid_t> Process::children() const {
  std::vector<pid_t> pids;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/task")) {
    std::ifstream stream(task.path() / "children");
    pid_t pid = 0;
    while (stream >> pid) pids.push_back(pid);
  }
  return pids;
}

Finished run(const std::vector<std::string>& command, const Process::Options& options, std::chrono::seconds limit) {
  Process process(command, options);
  const int status = process.wait(limit);
  return {status, process.out(), process.err()};
}

std::string program(const std::string& name) {
  const char* folder = std::getenv("FUSION_BIN_DIR");
  return (std::filesystem::path(folder != nullptr ? folder : "build/release/bin") / name).string();
}

}  // namespace fusion::testing
