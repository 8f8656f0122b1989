#pragma once

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tests/temporary_folder.h"

namespace fusion::testing {

struct ChildResult {
  int status = -1;  ///< exit status; 128 + signal for a killed one
  std::string out, err;
};

struct ChildSetting {
  std::map<std::string, std::string> environment;  ///< on top of this process's; FUSION_URL and NO_COLOR are removed first
  std::filesystem::path folder;                    ///< current folder; empty: inherited
  std::string input;                               ///< stdin
};

/// The program `$FUSION_BIN_DIR/fusionctl` as a process of its own, with files for stdout and stderr.
class Child {
 public:
  explicit Child(const std::vector<std::string>& arguments, const ChildSetting& setting = {});
  ~Child();  ///< kills one that still runs
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  ChildResult wait();
  std::string out() const;  ///< so far
  std::string err() const;
  /// Waits until stderr (or stdout) holds the text; false if the process ended or a minute passed without it.
  bool wait_for_err(const std::string& text);
  bool wait_for_out(const std::string& text);

 private:
  bool ended();
  bool wait_for(const std::string& file, const std::string& text);

  TemporaryFolder files_;
  pid_t pid_ = -1;
  int status_ = -1;
};

/// Starts it and waits for its end.
ChildResult run_fusionctl(const std::vector<std::string>& arguments, const ChildSetting& setting = {});

/// The same on a terminal of that size; `out` is all that was written to it, stderr included.
ChildResult run_on_terminal(const std::vector<std::string>& arguments, int columns, int lines,
                            const ChildSetting& setting = {});

}  // namespace fusion::testing
