#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json_reader.h"
#include "base/tensor_files.h"

namespace fusion::golden {

/// Where the golden cases lie: $FUSION_GOLDEN_DIR, else ../shared/golden beside the checkout (docs/golden.md).
inline std::filesystem::path folder() {
  if (const char* const given = std::getenv("FUSION_GOLDEN_DIR")) return given;
  const char* const source = std::getenv("FUSION_SOURCE_DIR");
  return std::filesystem::path(source != nullptr ? source : ".") / "../shared/golden";
}

/// Every sidecar below the folder, in order; none if it is absent.
inline std::vector<std::filesystem::path> sidecars() {
  std::vector<std::filesystem::path> found;
  std::error_code absent;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder(), absent)) {
    if (entry.path().extension() == ".json") found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

/// The sidecar's `kind`, or its `method` where it has no kind. Those of the BERT head's code have neither: "bert". Empty for any other.
inline std::string kind_of(const nlohmann::json& facts) {
  if (facts.is_object() && facts.contains("source") && facts["source"].is_string()) {
    if (facts["source"].get<std::string>().starts_with("LateTemporalModeling3DCNN")) return "bert";
  }
  for (const char* const key : {"kind", "method"}) {
    if (facts.is_object() && facts.contains(key) && facts[key].is_string()) return facts[key].get<std::string>();
  }
  return "";
}

/// The tensors beside a sidecar.
inline SafetensorsFile tensors_of(const std::filesystem::path& sidecar, const nlohmann::json& facts) {
  return SafetensorsFile::open(sidecar.parent_path() / facts.value("file", sidecar.stem().string() + ".safetensors"));
}

using Body = std::function<void()>;

class BodyTest : public testing::Test {
 public:
  explicit BodyTest(Body body) : body_(std::move(body)) {}
  void TestBody() override { body_(); }

 private:
  Body body_;
};

inline void register_test(const std::string& suite, const std::string& name, Body body) {
  testing::RegisterTest(suite.c_str(), name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                        [body = std::move(body)]() -> BodyTest* { return new BodyTest(body); });
}

/// Registers a test, named by its stem, for every sidecar whose kind is one of these; where there is none, one that skips with a
/// sentence. Kinds that are nobody's are skipped by name in golden_kinds_test.
using Check = std::function<void(const std::filesystem::path& sidecar, const nlohmann::json& facts)>;
inline void register_kinds(const std::string& suite, const std::map<std::string, Check>& kinds) {
  int registered = 0;
  for (const auto& sidecar : sidecars()) {
    const nlohmann::json facts = parse_json_file(sidecar);
    const auto check = kinds.find(kind_of(facts));
    if (check == kinds.end()) continue;
    register_test(suite, sidecar.stem().string(), [sidecar, facts, run = check->second] { run(sidecar, facts); });
    ++registered;
  }
  if (registered > 0) return;
  register_test(suite, "NoCases", [] {
    GTEST_SKIP() << "there are no golden cases of this program's kinds below " << folder() << "; set FUSION_GOLDEN_DIR";
  });
}

}  // namespace fusion::golden
