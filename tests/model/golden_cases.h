#pragma once

#include <gtest/gtest.h>

#include <ATen/core/Tensor.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/tensor_files.h"
#include "model/lenet.h"
#include "model/tensor_io.h"
#include "tests/golden.h"

namespace fusion::golden {

/// One sidecar with its tensors.
struct Case {
  std::filesystem::path sidecar;
  nlohmann::json facts;
  SafetensorsFile tensors;

  bool has(const std::string& name) const { return tensors.contains(name); }
  at::Tensor tensor(const std::string& name) const { return copy_tensor(tensors.at(name)); }
};

/// Registers a test for every sidecar whose "kind" is one of these.
inline void register_cases(const std::map<std::string, std::function<void(const Case&)>>& kinds) {
  std::map<std::string, Check> checks;
  for (const auto& [kind, run] : kinds) {
    checks[kind] = [run = run](const std::filesystem::path& sidecar, const nlohmann::json& facts) {
      run(Case{sidecar, facts, tensors_of(sidecar, facts)});
    };
  }
  register_kinds("Golden", checks);
}

struct Tolerance {
  double atol = 0, rtol = 0;
  static Tolerance read(const nlohmann::json& value) { return {value.value("atol", 0.0), value.value("rtol", 0.0)}; }
};

/// |got - expected| <= atol + rtol |expected| everywhere; reports the worst element.
inline void expect_close(const at::Tensor& got, const at::Tensor& expected, Tolerance tolerance, const std::string& what) {
  ASSERT_TRUE(got.defined()) << what << ": nothing was computed";
  ASSERT_EQ(got.sizes(), expected.sizes()) << what;
  const at::Tensor a = got.detach().to(at::kDouble).contiguous();
  const at::Tensor b = expected.to(at::kDouble).contiguous();
  double worst = 0;
  std::int64_t place = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    const double x = a.data_ptr<double>()[i];
    const double y = b.data_ptr<double>()[i];
    const double excess = std::abs(x - y) - tolerance.atol - tolerance.rtol * std::abs(y);
    if (!(excess <= worst)) {
      worst = std::isnan(excess) ? INFINITY : excess;
      place = i;
    }
  }
  EXPECT_EQ(worst, 0) << what << ": element " << place << " is " << a.flatten()[place].item<double>() << ", expected "
                      << b.flatten()[place].item<double>() << " within " << tolerance.atol << " + " << tolerance.rtol
                      << " relative";
}

/// The options of a LeNet whose tensors are called `prefix` + "conv1.weight" and so on.
inline LeNetOptions lenet_options(const SafetensorsFile& file, const std::string& prefix, const at::Tensor& input,
                                  bool first_tap_after_pool) {
  LeNetOptions options;
  options.blocks = 0;
  while (file.contains(prefix + "conv" + std::to_string(options.blocks + 1) + ".weight")) ++options.blocks;
  options.channels = file.at(prefix + "conv1.weight").shape.at(0);
  options.input_channels = input.size(1);
  options.height = input.size(2);
  options.width = input.size(3);
  options.classes = file.at(prefix + "classifier.bias").shape.at(0);
  options.first_tap_after_pool = first_tap_after_pool;
  return options;
}

inline NamedTensors all_tensors(const LeNet& network) {
  NamedTensors all = network.parameters().named();
  all.insert(all.end(), network.buffers().named().begin(), network.buffers().named().end());
  return all;
}

}  // namespace fusion::golden
