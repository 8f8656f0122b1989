#include "workers/dispatch/limits.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>

#include "base/json_reader.h"
#include "workers/protocol/codec.h"

namespace fusion {

namespace {

constexpr std::int64_t kMegabyte = 1 << 20;
constexpr rlim_t kEnoughDescriptors = 1 << 20;

std::chrono::milliseconds read_time(JsonReader& reader, const char* key, std::chrono::milliseconds fallback) {
  const double seconds = reader.number(key, 0.05, 3'600, std::chrono::duration<double>(fallback).count());
  return std::chrono::milliseconds(std::llround(1000 * seconds));
}

template <typename T>
T read_size(JsonReader& reader, const char* key, std::int64_t min, std::int64_t max, T fallback) {
  return static_cast<T>(reader.integer(key, min, max, static_cast<std::int64_t>(fallback)));
}

double seconds(std::chrono::milliseconds time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

Limits Limits::read(JsonReader& reader, Limits l) {
  const auto largest_frame = static_cast<std::int64_t>(protocol::kMaxFrame);
  l.handshake = read_time(reader, "handshake_s", l.handshake);
  l.timeout = read_time(reader, "request_s", l.timeout);
  l.header_limit = read_size(reader, "header_bytes", 1'024, kMegabyte, l.header_limit);
  l.body_limit = read_size(reader, "body_bytes", 1'024, 1'024 * kMegabyte, l.body_limit);
  l.connections = read_size(reader, "connections", 16, 1'000'000, l.connections);
  l.per_address = read_size(reader, "connections_per_address", 1, 1'000'000, l.per_address);
  l.unproven = read_size(reader, "connections_unproven", 8, 1'000'000, l.unproven);
  l.frame_limit = read_size(reader, "frame_bytes", 65'536, largest_frame, l.frame_limit);
  l.hello_limit = read_size(reader, "hello_bytes", 1'024, largest_frame, l.hello_limit);
  l.outbox_limit = read_size(reader, "outbox_bytes", kMegabyte, 1'024 * kMegabyte, l.outbox_limit);
  l.uncommitted = read_size(reader, "uncommitted_messages", 2, 1'000'000, l.uncommitted);
  reader.finish();
  return l;
}

nlohmann::json Limits::to_json() const {
  return {{"handshake_s", seconds(handshake)},  {"request_s", seconds(timeout)},
          {"header_bytes", header_limit},       {"body_bytes", body_limit},
          {"connections", connections},         {"connections_per_address", per_address},
          {"connections_unproven", unproven},   {"frame_bytes", frame_limit},
          {"hello_bytes", hello_limit},         {"outbox_bytes", outbox_limit},
          {"uncommitted_messages", uncommitted}};
}

std::size_t raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1'024;
  if (limit.rlim_cur < limit.rlim_max) {
    rlimit wanted = limit;
    wanted.rlim_cur = std::min(limit.rlim_max, std::max(limit.rlim_cur, kEnoughDescriptors));
    if (::setrlimit(RLIMIT_NOFILE, &wanted) == 0) limit = wanted;
  }
  return static_cast<std::size_t>(std::min(limit.rlim_cur, kEnoughDescriptors));
}

}  // namespace fusion
