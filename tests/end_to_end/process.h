#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace fusion::testing {

/// A real child process; its stdout and stderr go to files. Killed and reaped by the destructor if still alive.
class Process {
 public:
  struct Options {
    std::filesystem::path folder;  ///< working directory
    std::map<std::string, std::string> environment;
  };
  Process(std::vector<std::string> command, const Options& options);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  bool running();
  void signal(int number);
  /// Exit status, or 128 + signal. Fails the test (returns -1) if it has not ended by then; it is killed.
  int wait(std::chrono::seconds limit);
  std::string out() const;
  std::string err() const;
  /// Process ids of its children now.
  std::vector<pid_t> children() const;

 private:
  bool reap(bool block);
  pid_t pid_ = -1;
  int status_ = 0;
  bool ended_ = false;
  std::filesystem::path out_, err_;
};

struct Finished {
  int status = 0;
  std::string out, err;
};
/// Runs to the end.
Finished run(const std::vector<std::string>& command, const Process::Options& options, std::chrono::seconds limit = std::chrono::seconds(120));

/// A program of the build: `FUSION_BIN_DIR/name`.
std::string program(const std::string& name);

}  // namespace fusion::testing
