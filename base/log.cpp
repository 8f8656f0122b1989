#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <mutex>

#include "base/error.h"

namespace fusion {

namespace {
constexpr const char* kPattern = "%Y-%m-%dT%H:%M:%S.%eZ [%l] [%n] %v";
std::mutex making;  // only while a logger is looked up or made
}  // namespace

void configure_logs(const std::string& level) {
  const auto parsed = spdlog::level::from_str(level == "warn" ? "warning" : level);
  if (parsed == spdlog::level::off && level != "off") {
    throw ConfigError("log level: expected one of trace, debug, info, warn, error, off, got \"" + level + "\"");
  }
  spdlog::set_level(parsed);
}

std::shared_ptr<spdlog::logger> logger(const std::string& name) {
  const std::lock_guard lock(making);
  auto found = spdlog::get(name);
  if (!found) {
    found = spdlog::stderr_logger_mt(name);
    found->set_pattern(kPattern, spdlog::pattern_time_type::utc);
    found->flush_on(spdlog::level::info);
  }
  return found;
}

}  // namespace fusion
