#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fusion {

/// A child process in a folder of its own, whose output and errors are appended to a file. It is killed with this process, however that
/// goes, and by the destructor. For a process with one thread.
class Program {
 public:
  /// Throws std::system_error where no process can be made; a program that is not there ends with status 127.
  Program(const std::vector<std::string>& command, const std::filesystem::path& folder, const std::filesystem::path& log);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const;
  /// Exit status, or 128 and the signal that ended it; nullopt while it runs.
  std::optional<int> status();
  /// The same; waits so long for the end.
  std::optional<int> wait(std::chrono::milliseconds limit);

 private:
  pid_t pid_ = -1;
  std::optional<int> status_;
};

/// CPU seconds and resident megabytes of a process that runs; zeros if it is gone.
struct ProcessCost {
  double cpu_s = 0, rss_mb = 0;
};
ProcessCost cost_of(pid_t pid);

}  // namespace fusion
