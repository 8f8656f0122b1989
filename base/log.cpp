#include "base/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/dist_sink.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace fusion {

namespace {

constexpr const char* kPattern = "%Y-%m-%dT%H:%M:%S.%eZ [%l] [%n] %v";

/// One JSON object a line. Bytes that are not UTF-8 become U+FFFD.
class JsonLines final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& line) override {
    spdlog::memory_buf_t at;
    time_.format(message, at);
    const auto level = spdlog::level::to_string_view(message.level);
    const nlohmann::ordered_json object{{"at", std::string(at.data(), at.size())},
                                        {"level", std::string(level.data(), level.size())},
                                        {"logger", std::string(message.logger_name.data(), message.logger_name.size())},
                                        {"text", std::string(message.payload.data(), message.payload.size())}};
    const std::string text = object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    line.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonLines>(); }

 private:
  spdlog::pattern_formatter time_{"%Y-%m-%dT%H:%M:%S.%eZ", spdlog::pattern_time_type::utc, ""};
};

std::unique_ptr<spdlog::formatter> formatter_of(const LogOptions& options) {
  if (options.json) return std::make_unique<JsonLines>();
  return std::make_unique<spdlog::pattern_formatter>(kPattern, spdlog::pattern_time_type::utc);
}

spdlog::sink_ptr open_sink(const LogOptions& options) {
  spdlog::sink_ptr sink;
  try {
    if (options.file.empty()) {
      sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    } else if (options.max_mb > 0) {
      const auto bytes = static_cast<std::size_t>(options.max_mb) << 20;
      sink = std::make_shared<spdlog::sinks::rotating_file_sink_mt>(options.file, bytes, static_cast<std::size_t>(options.files));
    } else {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file);
    }
  } catch (const spdlog::spdlog_ex& error) {
    throw ConfigError("log file \"" + options.file + "\": it cannot be opened for writing (" + error.what() +
                      "); name one in a folder that this user may write");
  }
  sink->set_formatter(formatter_of(options));
  return sink;
}

/// What all loggers write to. Its own lock lets `reopen_logs` put another file in place while others log.
struct Logs {
  std::mutex making;  // only while a logger is looked up or made, and while options change
  LogOptions options;
  std::shared_ptr<spdlog::sinks::dist_sink_mt> sink = std::make_shared<spdlog::sinks::dist_sink_mt>(std::vector{open_sink({})});
};

Logs& logs() {
  static Logs* all = new Logs;  // loggers are used until the very end of the process
  return *all;
}

}  // namespace

void configure_logs(const LogOptions& options) {
  const auto parsed = spdlog::level::from_str(options.level == "warn" ? "warning" : options.level);
  if (parsed == spdlog::level::off && options.level != "off") {
    throw ConfigError("log level: expected one of trace, debug, info, warn, error, off, got \"" + options.level + "\"");
  }
  Logs& all = logs();
  const std::lock_guard lock(all.making);
  all.sink->set_sinks({open_sink(options)});
  all.options = options;
  spdlog::set_level(parsed);
}

void configure_logs(const std::string& level) {
  LogOptions options;
  options.level = level;
  configure_logs(options);
}

void reopen_logs() {
  try {
    Logs& all = logs();
    const std::lock_guard lock(all.making);
    if (!all.options.file.empty()) all.sink->set_sinks({open_sink(all.options)});
  } catch (const ConfigError& error) {
    logger("fusiond")->error("log file not opened again; the old one stays in use error=\"{}\"", error.what());
  }
}

std::shared_ptr<spdlog::logger> logger(const std::string& name) {
  Logs& all = logs();
  const std::lock_guard lock(all.making);
  auto found = spdlog::get(name);
  if (!found) {
    found = std::make_shared<spdlog::logger>(name, all.sink);
    found->set_level(spdlog::get_level());
    spdlog::register_logger(found);  // not initialize_logger: it would give the shared sink spdlog's own format
    found->flush_on(spdlog::level::info);
  }
  return found;
}

}  // namespace fusion
