#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "workers/dispatch/request_head.h"

namespace fusion {

/// What a request wants of a file.
struct ByteRange {
  enum class Kind {
    whole,    ///< no range, or one that a server may ignore (RFC 9110, 14.2): another unit, several ranges, not legal, a file changed since
    part,     ///< 206
    outside,  ///< 416: begins behind the end
  };
  Kind kind = Kind::whole;
  std::uint64_t begin = 0, bytes = 0;  ///< of `part` and of `whole`; of `outside` zeros

  std::uint64_t end() const { return begin + bytes; }
  /// "bytes 100-199/1000", or "bytes */1000".
  std::string content_range(std::uint64_t size) const;
  bool operator==(const ByteRange&) const = default;
};

/// `range`: the Range header, "" if there is none. `if_range`: the If-Range header; where it is not empty it must be `etag` (with its
/// quotes), else the whole file is wanted. `size`: of the file.
ByteRange read_byte_range(std::string_view range, std::string_view if_range, std::string_view etag, std::uint64_t size);

/// What a request says of how a file is to be sent.
struct AskedOfFile {
  unsigned version = 11;  ///< of HTTP
  bool keep_alive = false, head_only = false;
  std::string range, if_range;
};

/// The part that is wanted of the file that an answer names, whose header ETag (if there is one) is its tag. Where that is a part, or nothing,
/// the answer becomes 206, or 416; its headers say so.
ByteRange choose_range(HttpResponse& response, const AskedOfFile& asked, std::uint64_t size);

}  // namespace fusion
