#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>

namespace fusion {

class JsonReader;

/// How much of the daemon one client may take. Configured under "limits" (configs/README.md).
///
/// The rule is back-pressure in place of memory: what is over a limit is refused, closed or not read yet, never kept. What a stranger can take
/// is small: before a request was let in its connection costs a slot of `unproven` and the bytes of one head, and nothing of a body is read.
struct Limits {
  std::chrono::milliseconds handshake{10'000};  ///< for the TLS handshake
  std::chrono::milliseconds timeout{30'000};    ///< for a request's head, for its body, for taking its answer, and between two
  std::uint32_t header_limit = 8u << 10;        ///< bytes of request line and header fields; beyond: 431
  std::uint64_t body_limit = 8u << 20;          ///< bytes; beyond: 413
  std::size_t connections = 16'384;  ///< at once, workers too; cut to what descriptors allow. A newcomer takes the place of the oldest idle one, or is closed
  std::size_t per_address = 1'024;   ///< likewise of one address; loopback is not counted
  std::size_t unproven = 1'024;      ///< connections of which no request was let in yet: the oldest makes room for a newcomer
  std::uint64_t frame_limit = 9u << 20;     ///< bytes of a worker's message (an evaluation may have 8 MiB); beyond: closed with 1009
  std::uint64_t hello_limit = 4u << 20;     ///< bytes of its first one
  std::uint64_t outbox_limit = 64u << 20;   ///< bytes that a worker leaves unread; beyond: cut off
  std::size_t uncommitted = 512;  ///< messages of a worker that are not on disk yet: it is not read any further until they are

  /// Reads the document over `base`. Problems go to the reader.
  static Limits read(JsonReader& reader, Limits base);
  nlohmann::json to_json() const;
};

/// Raises this process's limit of open files as far as it may, and says how many there may be.
std::size_t raise_descriptor_limit();

}  // namespace fusion
