#include "base/json_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/files.h"
#include "base/json_depth.h"

namespace fusion {

using nlohmann::json;

namespace {

const json kEmptyObject = json::object();

std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

std::string shown(double value) { return json(value).dump(); }

std::string escaped(std::string_view key) {  // RFC 6901
  std::string text;
  for (const char c : key) {
    if (c == '~') text += "~0";
    else if (c == '/') text += "~1";
    else text += c;
  }
  return text;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0u : 1u)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

std::optional<std::string> nearest_name(std::string_view name, const std::set<std::string, std::less<>>& known) {
  std::optional<std::string> best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : known) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

JsonReader::JsonReader(const json& value, std::string source, JsonProblems& problems, std::string pointer)
    : value_(&value), source_(std::move(source)), problems_(&problems), pointer_(std::move(pointer)) {
  if (!value.is_object() && pointer_.empty()) {
    problems.add(source_ + ": expected a JSON object, got " + shown(value));
    value_ = &kEmptyObject;
  }
}

void JsonReader::fail(std::string_view key, std::string_view what) {
  std::string pointer = pointer_;
  if (!key.empty()) pointer += "/" + escaped(key);
  if (pointer.empty()) pointer = "/";
  problems_->add(source_ + ": " + pointer + ": " + std::string(what));
}

void JsonReader::wrong(std::string_view key, std::string_view expected, const json& got) {
  fail(key, "expected " + std::string(expected) + ", got " + shown(got));
}

const json* JsonReader::find(std::string_view key) {
  known_.emplace(key);
  if (!value_->is_object()) return nullptr;
  const auto found = value_->find(std::string(key));
  return found == value_->end() ? nullptr : &*found;
}

const json* JsonReader::required(std::string_view key, bool has_fallback, std::string_view expected) {
  const json* found = find(key);
  if (found == nullptr && !has_fallback) fail(key, "is missing; expected " + std::string(expected));
  return found;
}

bool JsonReader::has(std::string_view key) const { return value_->is_object() && value_->contains(std::string(key)); }

const json* JsonReader::raw(std::string_view key) { return find(key); }

std::int64_t JsonReader::integer(std::string_view key, std::int64_t min, std::int64_t max,
                                 std::optional<std::int64_t> fallback) {
  std::string expected = "an integer in [" + std::to_string(min) + ", " + std::to_string(max) + "]";
  if (max == std::numeric_limits<std::int64_t>::max()) expected = "an integer of at least " + std::to_string(min);
  const json* found = required(key, fallback.has_value(), expected);
  const std::int64_t otherwise = fallback.value_or(min);
  if (found == nullptr) return otherwise;
  const bool too_big = found->is_number_unsigned() && found->get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX);
  if (!found->is_number_integer() || too_big || found->get<std::int64_t>() < min || found->get<std::int64_t>() > max) {
    wrong(key, expected, *found);
    return otherwise;
  }
  return found->get<std::int64_t>();
}

std::uint64_t JsonReader::seed(std::string_view key, std::uint64_t fallback) {
  const json* found = find(key);
  if (found == nullptr) return fallback;
  if (!found->is_number_unsigned() && !(found->is_number_integer() && found->get<std::int64_t>() >= 0)) {
    wrong(key, "an integer in [0, 2^64)", *found);
    return fallback;
  }
  return found->get<std::uint64_t>();
}

double JsonReader::number(std::string_view key, double min, double max, std::optional<double> fallback) {
  const std::string expected = "a number in [" + shown(min) + ", " + shown(max) + "]";
  const json* found = required(key, fallback.has_value(), expected);
  const double otherwise = fallback.value_or(min);
  if (found == nullptr) return otherwise;
  if (!found->is_number() || !std::isfinite(found->get<double>()) || found->get<double>() < min || found->get<double>() > max) {
    wrong(key, expected, *found);
    return otherwise;
  }
  return found->get<double>();
}

bool JsonReader::boolean(std::string_view key, std::optional<bool> fallback) {
  const json* found = required(key, fallback.has_value(), "true or false");
  if (found == nullptr) return fallback.value_or(false);
  if (!found->is_boolean()) {
    wrong(key, "true or false", *found);
    return fallback.value_or(false);
  }
  return found->get<bool>();
}

std::string JsonReader::text(std::string_view key, std::optional<std::string> fallback) {
  const json* found = required(key, fallback.has_value(), "a text");
  if (found == nullptr) return fallback.value_or("");
  if (!found->is_string()) {
    wrong(key, "a text", *found);
    return fallback.value_or("");
  }
  return found->get<std::string>();
}

std::vector<std::string> JsonReader::texts(std::string_view key, std::optional<std::vector<std::string>> fallback) {
  const json* found = required(key, fallback.has_value(), "a list of texts");
  const std::vector<std::string> otherwise = fallback.value_or(std::vector<std::string>{});
  if (found == nullptr) return otherwise;
  if (!found->is_array() || !std::all_of(found->begin(), found->end(), [](const json& e) { return e.is_string(); })) {
    wrong(key, "a list of texts", *found);
    return otherwise;
  }
  return found->get<std::vector<std::string>>();
}

JsonReader JsonReader::object(std::string_view key, bool is_required) {
  const json* found = required(key, !is_required, "an object");
  if (found != nullptr && !found->is_object()) {
    wrong(key, "an object", *found);
    found = nullptr;
  }
  return JsonReader(found != nullptr ? *found : kEmptyObject, source_, *problems_, pointer_ + "/" + escaped(key));
}

std::vector<JsonReader> JsonReader::list(std::string_view key, bool is_required) {
  const json* found = required(key, !is_required, "a list");
  std::vector<JsonReader> readers;
  if (found == nullptr) return readers;
  if (!found->is_array()) {
    wrong(key, "a list", *found);
    return readers;
  }
  for (std::size_t i = 0; i < found->size(); ++i) {
    readers.emplace_back((*found)[i], source_, *problems_, pointer_ + "/" + escaped(key) + "/" + std::to_string(i));
  }
  return readers;
}

void JsonReader::finish() {
  if (!value_->is_object()) return;
  for (const auto& [key, value] : value_->items()) {
    if (known_.contains(key)) continue;
    const auto near = nearest_name(key, known_);
    std::string what = "is not a known key";
    if (near) {
      what += "; did you mean \"" + *near + "\"?";
    } else {
      what += "; known are:";
      for (const std::string& name : known_) what += " " + name;
    }
    fail(key, what);
  }
}

json parse_json(std::string_view text, const std::string& source) {
  if (json_depth(text) > kMaxJsonDepth) {
    throw ConfigError(source + ": lists and objects are nested more than " + std::to_string(kMaxJsonDepth) + " deep; expected fewer levels");
  }
  std::vector<std::set<std::string>> keys;
  std::string duplicate;
  const json::parser_callback_t check = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second && duplicate.empty()) {
      duplicate = parsed.get<std::string>();
    }
    return true;
  };
  try {
    json value = json::parse(text, check);
    if (!duplicate.empty()) throw ConfigError(source + ": the key \"" + duplicate + "\" stands twice in one object");
    return value;
  } catch (const json::parse_error& error) {
    const std::string_view before = text.substr(0, std::min<std::size_t>(text.size(), error.byte > 0 ? error.byte - 1 : 0));
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const std::size_t newline = before.rfind('\n');
    const std::size_t column = before.size() - (newline == std::string_view::npos ? 0 : newline + 1) + 1;
    std::string reason = error.what();
    if (const auto at = reason.find("while parsing"); at != std::string::npos) reason = reason.substr(at);
    throw ConfigError(source + ": line " + std::to_string(line) + ", column " + std::to_string(column) + ": not valid JSON: " + reason);
  } catch (const json::exception& error) {  // a number that fits no type
    std::string reason = error.what();
    if (const auto at = reason.find("] "); at != std::string::npos) reason = reason.substr(at + 2);
    throw ConfigError(source + ": not readable JSON: " + reason);
  }
}

json parse_json_file(const std::filesystem::path& file) { return parse_json(read_text(file), file.string()); }

}  // namespace fusion
