#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "workers/protocol/messages.h"

namespace fusion::protocol {

/// One JSON object, no line breaks.
std::string encode(const Message& message);

/// As it stands in hello and heartbeat; also what the HTTP API shows of a worker.
nlohmann::json condition_json(const Condition& condition);

/// Throws ProtocolError that names the JSON pointer: not JSON, unknown type, missing, unknown or wrong member. Never crashes,
/// whatever the bytes. Frames over kMaxFrame are refused before parsing.
Message decode(std::string_view text);
inline constexpr std::size_t kMaxFrame = 16u << 20;

}  // namespace fusion::protocol
