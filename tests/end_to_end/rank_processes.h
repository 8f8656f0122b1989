#pragma once

#include <sys/types.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace fusion::testing {

/// The processes fusion-rank that this one or one of its descendants started, the first rank first.
inline std::vector<pid_t> rank_processes(pid_t of) {
  std::vector<pid_t> found;
  std::error_code gone;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(of) + "/task", gone)) {
    std::ifstream children(thread.path() / "children");
    for (pid_t child = 0; children >> child;) {
      std::string name;
      std::ifstream("/proc/" + std::to_string(child) + "/comm") >> name;
      if (name == "fusion-rank") found.push_back(child);
      const std::vector<pid_t> further = rank_processes(child);
      found.insert(found.end(), further.begin(), further.end());
    }
  }
  return found;
}

}  // namespace fusion::testing
