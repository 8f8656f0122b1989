#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace fusion {

/// What a child process is started with.
struct ChildCommand {
  std::string program;                             ///< path; PATH is not searched
  std::vector<std::string> arguments;              ///< without the program's name
  std::map<std::string, std::string> environment;  ///< added to, or in place of, this process's own
  bool only_environment = false;                   ///< `environment` is all of it
  std::optional<int> core;                         ///< the only core it may run on
  /// Descriptors that become its standard input, output and errors; -1: /dev/null, and this process's output and errors. They stay open here.
  int input = -1, output = -1, errors = -1;
};

/// Starts a child: standard input is empty, output and errors are this process's, no other file descriptor is inherited (a
/// child that outlives a killed daemon must not keep its port), no signal is blocked or ignored, and it leads a process group of its
/// own, so that a Ctrl-C at the terminal reaches this process alone. Safe in a process with threads.
/// Throws std::system_error with the program's path; a program that is not there is an error here, not an exit status.
pid_t start_child(const ChildCommand& command);

/// How a child ended, if it has: its status as of waitpid. Never waits, and never takes another's child.
std::optional<int> ended_child(pid_t pid);

/// "exit status 2", "signal 9".
std::string end_text(int wait_status);

/// The cores this process may run on, ascending.
std::vector<int> usable_cores();

}  // namespace fusion
