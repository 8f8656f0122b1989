#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace boost::asio {
class io_context;
}

namespace fusion {

/// A program to run to its end, without a shell.
struct CommandLine {
  std::string program;                             ///< path
  std::vector<std::string> arguments;              ///< without the program's name
  std::map<std::string, std::string> environment;  ///< all of it
  std::string input;                               ///< what it reads from standard input
  std::chrono::milliseconds limit{30'000};         ///< then it is killed, with all of its process group
};

/// How it ended.
struct CommandEnd {
  int status = -1;      ///< exit status; -1 where there is none: it was killed, or not started
  std::string problem;  ///< "did not end within 30.0 s", "signal 9", "No such file or directory"; empty if it exited
  std::string output, errors;
  bool good() const { return status == 0; }
};

/// A command under way.
///
/// Lives on the I/O thread of `io`; nothing blocks. `done` is called once, never from within `start`; not at all if the command is destroyed
/// first: then it is killed and reaped. Output beyond 64 MB ends it like the limit does.
class AsyncCommand {
 public:
  static std::unique_ptr<AsyncCommand> start(boost::asio::io_context& io, CommandLine line, std::function<void(CommandEnd)> done);
  ~AsyncCommand();
  AsyncCommand(const AsyncCommand&) = delete;
  AsyncCommand& operator=(const AsyncCommand&) = delete;

 private:
  class Impl;
  explicit AsyncCommand(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;  // handlers under way hold it weakly
};

/// The first executable file of that name in the folders of `path` ("/usr/bin:/bin"); empty where there is none. A name with a slash is
/// taken as it is.
std::string find_program(const std::string& name, const std::string& path);

}  // namespace fusion
