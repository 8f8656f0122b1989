#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/enum_names.h"
#include "base/error.h"

namespace fusion {

/// Collects every problem of a document, so that a person sees all at once.
class JsonProblems {
 public:
  void add(std::string problem) { problems_.push_back(std::move(problem)); }
  bool empty() const { return problems_.empty(); }
  const std::vector<std::string>& list() const { return problems_; }
  /// Throws ConfigError with all of them, in the order found.
  void throw_if_any() const {
    if (!problems_.empty()) throw ConfigError(problems_);
  }

 private:
  std::vector<std::string> problems_;
};

/// A cursor over one JSON value that knows its file and its JSON pointer, checks types and ranges and rejects unknown keys,
/// naming the nearest known one.
///
///     JsonProblems problems;
///     JsonReader reader(document, "study.json", problems);
///     options.epochs = reader.integer("epochs", 1, 1000, options.epochs);   // default where the key is absent
///     JsonReader training = reader.object("training");                      // absent: an empty object
///     ...
///     training.finish(); reader.finish();                                   // unknown keys
///     problems.throw_if_any();
///
/// A wrong value is reported as `study.json: /training/epochs: expected an integer in [1, 1000], got "3"` and the default
/// is returned, so reading goes on to the next problem. The value and the problems must outlive the reader.
class JsonReader {
 public:
  JsonReader(const nlohmann::json& value, std::string source, JsonProblems& problems, std::string pointer = "");

  bool has(std::string_view key) const;
  std::int64_t integer(std::string_view key, std::int64_t min, std::int64_t max, std::optional<std::int64_t> fallback = {});
  std::uint64_t seed(std::string_view key, std::uint64_t fallback);  ///< any unsigned 64-bit integer
  double number(std::string_view key, double min, double max, std::optional<double> fallback = {});
  bool boolean(std::string_view key, std::optional<bool> fallback = {});
  std::string text(std::string_view key, std::optional<std::string> fallback = {});
  std::vector<std::string> texts(std::string_view key, std::optional<std::vector<std::string>> fallback = {});
  /// A member that is an object. Absent: an empty one if `required` is false, else a problem (and an empty one).
  JsonReader object(std::string_view key, bool required = false);
  /// The elements of a member that is a list; absent: a problem if required.
  std::vector<JsonReader> list(std::string_view key, bool required = false);
  template <typename E>
  E choice(std::string_view key, std::optional<E> fallback = {}) {
    std::optional<std::string> fallback_text;
    if (fallback) fallback_text = std::string(name_of(*fallback));
    const std::size_t before = problems_->list().size();
    const std::string chosen = text(key, fallback_text);
    if (const auto value = enum_from_name<E>(chosen)) return *value;
    if (problems_->list().size() == before) fail(key, "expected one of " + enum_choices<E>() + ", got \"" + chosen + "\"");
    return fallback ? *fallback : EnumNames<E>::kTable[0].first;
  }

  /// The raw value (an empty object where the member was absent) and where it stands.
  const nlohmann::json& value() const { return *value_; }
  const std::string& pointer() const { return pointer_; }
  /// Marks a key as known without reading it (the caller reads `value()` itself).
  const nlohmann::json* raw(std::string_view key);
  /// Reports a problem at a member (or at this value if `key` is empty).
  void fail(std::string_view key, std::string_view what);
  JsonProblems& problems() { return *problems_; }
  /// Reports every member that was never asked for.
  void finish();

 private:
  const nlohmann::json* find(std::string_view key);
  const nlohmann::json* required(std::string_view key, bool has_fallback, std::string_view expected);
  void wrong(std::string_view key, std::string_view expected, const nlohmann::json& got);

  const nlohmann::json* value_;
  std::string source_;
  JsonProblems* problems_;
  std::string pointer_;
  std::set<std::string, std::less<>> known_;
};

/// Parses a text or a file; throws ConfigError with `source: line 3, column 7: ...` for bad JSON, DataError for a file that
/// cannot be read. Comments are not allowed, duplicate keys are an error.
nlohmann::json parse_json(std::string_view text, const std::string& source);
nlohmann::json parse_json_file(const std::filesystem::path& file);

/// The nearest of `known` by edit distance, if it is near enough to be a misspelling.
std::optional<std::string> nearest_name(std::string_view name, const std::set<std::string, std::less<>>& known);

}  // namespace fusion
