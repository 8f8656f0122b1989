#pragma once

#include <spdlog/logger.h>

#include <memory>
#include <string>

namespace fusion {

/// Sets level (trace, debug, info, warn, error, off) and format of every logger, before and after it exists. Logs go to
/// stderr: `2026-01-31T12:00:00.123Z [info] [dispatch] trial leased trial=42 worker=w3`. Throws ConfigError for another level.
void configure_logs(const std::string& level);

/// The logger of that name, made on first use. Thread-safe.
std::shared_ptr<spdlog::logger> logger(const std::string& name);

}  // namespace fusion
