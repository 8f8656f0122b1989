#include "tools/ctl/study_file.h"

#include <filesystem>
#include <iostream>
#include <iterator>

#include "base/json_reader.h"
#include "tools/ctl/figures.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

json read_document(const std::string& file) {
  if (file != "-") return parse_json_file(file);
  const std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  return parse_json(text, "stdin");
}

}  // namespace

json read_study_file(const std::string& file, const StudyOverrides& overrides) {
  json document = read_document(file);
  if (!document.is_object()) {
    throw ConfigError((file == "-" ? "stdin" : file) + ": expected a study, a JSON object, got a JSON " + document.type_name());
  }
  const std::filesystem::path dataset = text_in(document, "dataset");
  std::error_code ignored;
  if (!dataset.empty() && dataset.is_relative() && std::filesystem::exists(dataset, ignored)) {
    document["dataset"] = std::filesystem::absolute(dataset).lexically_normal().string();
  }
  if (overrides.name) document["name"] = *overrides.name;
  if (overrides.seed) document["seed"] = *overrides.seed;
  if (overrides.priority) document["priority"] = *overrides.priority;
  return document;
}

}  // namespace fusion::ctl
