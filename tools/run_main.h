#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <string>

#include "base/error.h"

namespace fusion {

/// The frame of every program's main(): parses the command line, runs `work`, and turns exceptions into sentences on stderr.
///
/// Exit status: what `work` returns; 2 for bad input (a wrong command line, any fusion::Error), each problem on a line of its
/// own behind the program's name; 1 for anything else that was thrown. `--help` and `--version` exit 0.
inline int run_main(const std::string& program, CLI::App& app, int argc, char** argv, const std::function<int()>& work) {
  try {
    app.parse(argc, argv);  // runs the callbacks of subcommands too
    return work();
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const Error& error) {
    std::string text = error.what();
    for (std::size_t at = 0; at <= text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      std::fprintf(stderr, "%s: %s\n", program.c_str(), text.substr(at, end - at).c_str());
      at = end + 1;
    }
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: internal error: %s\n", program.c_str(), error.what());
    return 1;
  }
}

}  // namespace fusion
