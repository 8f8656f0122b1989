#pragma once

#include <spdlog/logger.h>

#include <memory>
#include <string>

namespace fusion {

/// Where the logs of a process go, and what they say.
struct LogOptions {
  std::string level = "info";  ///< trace, debug, info, warn, error, off
  std::string file;            ///< appended to; empty: stderr
  int max_mb = 0;              ///< the file is rotated by ourselves beyond so many megabytes; 0: never (logrotate and SIGHUP do it)
  int files = 5;               ///< rotated files that are kept, of x.log x.1.log is the youngest; means nothing where max_mb is 0
  bool json = false;           ///< one JSON object a line: at, level, logger, text
};

/// Sets where every logger writes, before and after it exists: `2026-01-31T12:00:00.123Z [info] [dispatch] trial leased trial=42 worker=w3`.
/// Throws ConfigError for another level, or a file that cannot be opened. Call while no other thread logs.
///
/// A log that cannot be written (its disk is full) stops nobody: lines are lost, and what comes when there
/// is room again is written.
void configure_logs(const LogOptions& options);
/// To stderr.
void configure_logs(const std::string& level);

/// Opens the log file anew under its name, for whoever moved it away. If that fails the old one stays in use, and gets the error. Any thread.
void reopen_logs();

/// The logger of that name, made on first use. Thread-safe.
std::shared_ptr<spdlog::logger> logger(const std::string& name);

}  // namespace fusion
