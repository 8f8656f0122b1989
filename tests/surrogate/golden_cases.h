#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/tensor_files.h"
#include "tests/golden.h"

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

/// Registers a test per sidecar whose kind is one of `checks`, named by its stem, and runs them.
inline int run_golden_tests(const std::string& suite, const std::map<std::string, GoldenCheck>& checks) {
  std::map<std::string, golden::Check> kinds;
  for (const auto& [kind, check] : checks) {
    kinds[kind] = [check = check](const std::filesystem::path& sidecar, const nlohmann::json& facts) {
      check({facts, golden::tensors_of(sidecar, facts)});
    };
  }
  golden::register_kinds(suite, kinds);
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
