#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace fusion {

/// A text of others for the log: in quotes, on one line, whatever bytes it holds.
inline std::string log_text(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace fusion
