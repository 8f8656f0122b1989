#pragma once

#include <cstdint>
#include <exception>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "workers/dispatch/request_head.h"

namespace fusion {

/// What the files of the API share.

HttpResponse answer(int status, const nlohmann::json& body);
/// {"error": {"problems": [...]}}
HttpResponse refusal(int status, const std::vector<std::string>& problems);
/// The problems of an Error; anything else is an internal error (500).
HttpResponse refusal(int status, const std::exception_ptr& error);
std::vector<std::string> split(const std::string& path);
/// "GET /api/v1/studies/:id/trials": the kind of a request to a known address, for counting; of few values, whatever ids and names stand in it.
std::string route_of(const std::string& method, const std::vector<std::string>& path);
std::optional<std::int64_t> whole_number(const std::string& text);

/// Reads the query of a URL; collects every problem, unknown parameters too.
class QueryReader {
 public:
  explicit QueryReader(const HttpRequest& request) : query_(request.query) {}
  std::int64_t integer(const std::string& key, std::int64_t min, std::int64_t max, std::int64_t fallback) {
    const auto text = take(key);
    if (!text) return fallback;
    const auto value = whole_number(*text);
    if (value && *value >= min && *value <= max) return *value;
    problems_.push_back("?" + key + ": expected an integer in [" + std::to_string(min) + ", " + std::to_string(max) + "], got \"" + *text + "\"");
    return fallback;
  }
  std::optional<std::string> text(const std::string& key) { return take(key); }
  void fail(std::string problem) { problems_.push_back(std::move(problem)); }
  void finish() {
    for (const auto& [key, value] : query_) {
      if (!known_.contains(key)) problems_.push_back("?" + key + ": is not a known parameter");
    }
    if (!problems_.empty()) throw ConfigError(problems_);
  }

 private:
  std::optional<std::string> take(const std::string& key) {
    known_.insert(key);
    const auto found = query_.find(key);
    return found == query_.end() ? std::nullopt : std::optional<std::string>(found->second);
  }
  const std::map<std::string, std::string>& query_;
  std::set<std::string> known_;
  std::vector<std::string> problems_;
};

}  // namespace fusion
