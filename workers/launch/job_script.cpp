#include "workers/launch/job_script.h"

#include <map>

#include "base/error.h"

namespace fusion {

namespace {

bool is_plain(std::string_view word) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";
  return !word.empty() && word.find_first_not_of(kPlain) == std::string_view::npos;
}

std::string quoted(const std::string& word) {
  if (is_plain(word)) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t") - begin + 1));
}

}  // namespace

std::string shell_words(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + quoted(word);
  return text;
}

std::string job_script(std::string_view source, std::string_view text, const std::string& run, const std::string& prologue) {
  const std::string name(source);
  const std::map<std::string, std::string> known{{"run", run}, {"prologue", prologue}};
  std::map<std::string, int> used;
  std::vector<std::string> problems;
  if (!text.starts_with("#!")) problems.push_back(name + ": expected a first line such as #!/bin/bash, which Slurm asks of every job script");
  std::string script;
  while (true) {
    const std::size_t open = text.find("{{");
    script += text.substr(0, open);
    if (open == std::string_view::npos) break;
    const std::size_t close = text.find("}}", open);
    if (close == std::string_view::npos) {
      problems.push_back(name + ": a variable begins with {{ and does not end with }}");
      break;
    }
    const std::string variable = trimmed(text.substr(open + 2, close - open - 2));
    const auto found = known.find(variable);
    if (found == known.end()) problems.push_back(name + ": expected {{run}} or {{prologue}}, got {{" + variable + "}}, which has no value");
    else script += found->second;
    ++used[variable];
    text.remove_prefix(close + 2);
  }
  if (used["run"] == 0) problems.push_back(name + ": expected the variable {{run}} where the worker is to be started, as in: exec {{run}}");
  if (!prologue.empty() && used["prologue"] == 0) problems.push_back(name + ": expected the variable {{prologue}}, for the pool has a prologue");
  if (!problems.empty()) throw ConfigError(problems);
  return script;
}

}  // namespace fusion
