#include "workers/client/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "workers/protocol/codec.h"

namespace fusion {

namespace {

UnixMs unix_ms() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

bool ends_amid_line(int descriptor) {
  const off_t size = ::lseek(descriptor, 0, SEEK_END);
  char last = '\n';
  return size > 0 && ::pread(descriptor, &last, 1, size - 1) == 1 && last != '\n';
}

JournalLine line_of(const nlohmann::json& json) {
  return {json.at("at_ms").get<UnixMs>(), json.at("event").get<std::string>() == "sent", protocol::decode(json.at("message").dump())};
}

}  // namespace

Journal::Journal(const std::filesystem::path& file) : file_(file) {
  descriptor_ = ::open(file.c_str(), O_CREAT | O_APPEND | O_RDWR | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw DataError(file.string() + ": the journal cannot be opened: " + std::strerror(errno));
  if (ends_amid_line(descriptor_) && ::write(descriptor_, "\n", 1) != 1) {
    throw DataError(file.string() + ": the journal cannot be written: " + std::strerror(errno));
  }
}

Journal::~Journal() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void Journal::append(const char* event, const protocol::Message& message) {
  const std::string line = "{\"at_ms\":" + std::to_string(unix_ms()) + ",\"event\":\"" + event + "\",\"message\":" + protocol::encode(message) + "}\n";
  const ssize_t written = ::write(descriptor_, line.data(), line.size());
  if (written == static_cast<ssize_t>(line.size())) return;
  throw ConfigError(file_.string() + ": the journal cannot be written: " + (written < 0 ? std::strerror(errno) : "the disk is full"));
}

JournalText read_journal(const std::filesystem::path& file) {
  const std::string text = read_text(file);
  JournalText journal;
  std::int64_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    const std::string_view line = std::string_view(text).substr(at, end == std::string::npos ? std::string::npos : end - at);
    at = end == std::string::npos ? text.size() : end + 1;
    ++number;
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_discarded()) {
      ++journal.torn;
      continue;
    }
    try {
      journal.lines.push_back(line_of(json));
    } catch (const std::exception& error) {
      throw DataError(file.string() + ": line " + std::to_string(number) + " is no line of a journal: " + error.what());
    }
  }
  return journal;
}

}  // namespace fusion
