#include "tools/rank_channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

namespace fusion {

using nlohmann::json;

RankChannel::~RankChannel() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

RankChannel::RankChannel(RankChannel&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), buffer_(std::move(other.buffer_)) {}

bool RankChannel::send(const json& message) const {
  const std::string line = message.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  for (std::size_t sent = 0; sent < line.size();) {
    const ssize_t now = ::send(descriptor_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (now < 0 && errno == EINTR) continue;
    if (now < 0) return false;
    sent += static_cast<std::size_t>(now);
  }
  return true;
}

/// False at the end, or if there is nothing and `flags` forbids to wait.
bool RankChannel::read_more(int flags) {
  char part[16'384];
  ssize_t got = 0;
  do {
    got = ::recv(descriptor_, part, sizeof part, flags);
  } while (got < 0 && errno == EINTR);
  if (got > 0) buffer_.append(part, static_cast<std::size_t>(got));
  return got > 0;
}

bool RankChannel::take_line(std::string& line) {
  const std::size_t end = buffer_.find('\n');
  if (end == std::string::npos) return false;
  line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  return true;
}

json RankChannel::receive() {
  std::string line;
  while (!take_line(line)) {
    if (!read_more(0)) return {};
  }
  return json::parse(line);
}

std::vector<json> RankChannel::received() {
  while (read_more(MSG_DONTWAIT)) {}
  std::vector<json> messages;
  for (std::string line; take_line(line);) messages.push_back(json::parse(line));
  return messages;
}

}  // namespace fusion
