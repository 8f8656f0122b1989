#include "workers/dispatch/byte_range.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace fusion {

namespace {

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string ByteRange::content_range(std::uint64_t size) const {
  if (kind == Kind::outside) return "bytes */" + std::to_string(size);
  return "bytes " + std::to_string(begin) + "-" + std::to_string(end() - 1) + "/" + std::to_string(size);
}

ByteRange read_byte_range(std::string_view range, std::string_view if_range, std::string_view etag, std::uint64_t size) {
  const ByteRange whole{ByteRange::Kind::whole, 0, size};
  const ByteRange outside{ByteRange::Kind::outside, 0, 0};
  constexpr std::string_view kUnit = "bytes=";
  range = trimmed(range);
  if (!range.starts_with(kUnit) || range.find(',') != std::string_view::npos) return whole;
  if (!if_range.empty() && if_range != etag) return whole;
  range = trimmed(range.substr(kUnit.size()));
  const std::size_t dash = range.find('-');
  if (dash == std::string_view::npos) return whole;
  const std::string_view first = range.substr(0, dash), last = range.substr(dash + 1);
  const auto from = number(first), to = number(last);
  if (first.empty()) {  // the last so many
    if (!to) return whole;
    if (*to == 0 || size == 0) return outside;
    const std::uint64_t bytes = std::min(*to, size);
    return {ByteRange::Kind::part, size - bytes, bytes};
  }
  if (!from || (!last.empty() && (!to || *to < *from))) return whole;
  if (*from >= size) return outside;
  const std::uint64_t most = size - *from;
  return {ByteRange::Kind::part, *from, to ? std::min(most, *to - *from + 1) : most};
}

ByteRange choose_range(HttpResponse& response, const AskedOfFile& asked, std::uint64_t size) {
  std::string etag;
  for (const auto& [name, value] : response.headers) {
    if (name == "ETag") etag = value;
  }
  const ByteRange range = read_byte_range(asked.range, asked.if_range, etag, size);
  response.headers.emplace_back("Accept-Ranges", "bytes");
  if (range.kind == ByteRange::Kind::whole) return range;
  response.headers.emplace_back("Content-Range", range.content_range(size));
  response.status = range.kind == ByteRange::Kind::part ? 206 : 416;
  return range;
}

}  // namespace fusion
