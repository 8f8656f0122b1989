#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json_reader.h"
#include "base/tensor_files.h"

namespace fusion {

/// A golden case: the sidecar (sizes, options, tolerances) and the tensors beside it.
struct GoldenCase {
  nlohmann::json sidecar;
  SafetensorsFile tensors;

  /// tolerance[group][key] or tolerance[key]; 0 where there is none.
  double tolerance(std::string_view key, std::string_view group = "") const {
    const nlohmann::json all = sidecar.value("tolerance", nlohmann::json::object());
    if (!group.empty() && !all.contains(group)) return 0;
    return (group.empty() ? all : all.at(std::string(group))).value(std::string(key), 0.0);
  }
  std::vector<float> floats(std::string_view name) const { return tensors.at(name).to<float>(); }
  std::vector<std::int64_t> integers(std::string_view name) const { return tensors.at(name).to<std::int64_t>(); }
  const std::vector<std::int64_t>& shape(std::string_view name) const { return tensors.at(name).shape; }
};

using GoldenCheck = std::function<void(const GoldenCase&)>;

class GoldenTest : public testing::Test {
 public:
  GoldenTest(std::filesystem::path sidecar, GoldenCheck check)
      : sidecar_(std::move(sidecar)), check_(std::move(check)) {}
  void TestBody() override {
    if (!check_) GTEST_SKIP() << "No golden cases for this program below " << sidecar_ << " (set FUSION_GOLDEN_DIR).";
    const nlohmann::json sidecar = parse_json_file(sidecar_);
    const auto file = sidecar_.parent_path() / sidecar.at("file").get<std::string>();
    check_({sidecar, SafetensorsFile::open(file)});
  }

 private:
  std::filesystem::path sidecar_;
  GoldenCheck check_;
};

/// Registers a test per sidecar below the golden folder whose kind is one of `checks`, named by the sidecar's stem.
inline int run_golden_tests(const std::string& suite, const std::map<std::string, GoldenCheck>& checks) {
  const char* named = std::getenv("FUSION_GOLDEN_DIR");
  const char* source = std::getenv("FUSION_SOURCE_DIR");
  const std::filesystem::path folder =
      named != nullptr ? std::filesystem::path(named)
                       : std::filesystem::path(source != nullptr ? source : ".") / "../shared/golden";
  std::vector<std::filesystem::path> sidecars;
  if (std::filesystem::is_directory(folder)) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (entry.path().extension() == ".json") sidecars.push_back(entry.path());
    }
  }
  std::sort(sidecars.begin(), sidecars.end());
  int found = 0;
  const auto add = [&](const std::string& name, const std::filesystem::path& path, const GoldenCheck& check) {
    testing::RegisterTest(suite.c_str(), name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                          [path, check]() -> GoldenTest* { return new GoldenTest(path, check); });
    ++found;
  };
  for (const auto& path : sidecars) {
    const nlohmann::json sidecar = parse_json_file(path);
    if (!sidecar.is_object() || !sidecar.contains("kind") || !sidecar["kind"].is_string()) continue;
    const auto check = checks.find(sidecar["kind"].get<std::string>());
    if (check != checks.end()) add(path.stem().string(), path, check->second);
  }
  if (found == 0) add("NoCases", folder, nullptr);
  return RUN_ALL_TESTS();
}

/// |actual - expected| <= atol + rtol |expected|, element by element.
inline void expect_close(std::span<const float> actual, std::span<const float> expected, double atol, double rtol,
                         const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double allowed = atol + rtol * std::abs(static_cast<double>(expected[i]));
    ASSERT_NEAR(actual[i], expected[i], allowed) << what << " [" << i << "]";
  }
}

}  // namespace fusion
