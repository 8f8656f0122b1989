#pragma once

#include <string_view>

namespace fusion::fuzz {

/// Each takes bytes of a stranger and reads them as the product does. A fusion::Error is a right answer; what escapes, crashes, or reads back
/// otherwise than it was written is a finding.
void protocol_frame(std::string_view bytes);
void http_request(std::string_view bytes);
void config_json(std::string_view bytes);
void triplet_text(std::string_view bytes);
void safetensors(std::string_view bytes);
void npy(std::string_view bytes);
void idx(std::string_view bytes);
void wav(std::string_view bytes);

}  // namespace fusion::fuzz
