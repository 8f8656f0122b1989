#include "tools/api_parts.h"

#include <algorithm>
#include <charconv>

#include "base/log.h"

namespace fusion {

using nlohmann::json;

HttpResponse answer(int status, const json& body) {
  return {status, "application/json", body.dump(-1, ' ', false, json::error_handler_t::replace) + "\n"};
}

HttpResponse refusal(int status, const std::vector<std::string>& problems) {
  return answer(status, {{"error", {{"problems", problems}}}});
}

HttpResponse refusal(int status, const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const ConfigError& config) {
    return refusal(status, config.problems());
  } catch (const Error& known) {
    return refusal(status, std::vector<std::string>{known.what()});
  } catch (const std::exception& other) {
    logger("api")->error("request failed error=\"{}\"", other.what());
    return refusal(500, std::vector<std::string>{std::string("internal error: ") + other.what()});
  }
}

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    if (end > at) parts.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

std::string route_of(const std::string& method, const std::vector<std::string>& path) {
  static const std::map<std::string, std::string> kNamedBy{
      {"studies", "/:id"}, {"trials", "/:id"}, {"retrainings", "/:id"}, {"artifacts", "/:name"}, {"blobs", "/:digest"}, {"files", "/:name"}};
  const bool of_file = (method == "PUT" || method == "DELETE") && path.size() > 1 && path[path.size() - 2] == "files";
  if (method != "GET" && method != "HEAD" && method != "POST" && !of_file) return "other";
  std::string route = method + " ";
  for (std::size_t i = 0; i < path.size(); ++i) {
    const auto before = i == 0 ? kNamedBy.end() : kNamedBy.find(path[i - 1]);
    route += before != kNamedBy.end() ? before->second : "/" + path[i];
  }
  return route;
}

std::optional<std::int64_t> whole_number(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace fusion
