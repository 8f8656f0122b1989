#pragma once

#include "tests/model/filled.h"
#include "tests/model/golden_cases.h"

namespace fusion::golden {

/// A case's weights: stored as `w.<name>`, or filled by rule.
inline void set_weights(const Case& given, const NamedTensors& into) {
  if (!given.facts.contains("fill")) return load_tensors(given.tensors, into, "w.");
  std::map<std::string, const nlohmann::json*> entries;
  for (const auto& entry : given.facts.at("fill")) entries[entry.at("name").get<std::string>()] = &entry;
  for (const auto& [name, tensor] : into) {
    ASSERT_TRUE(entries.contains(name)) << name << " is not in the sidecar's fill";
    ASSERT_EQ(tensor.sizes(), entries[name]->at("shape").get<std::vector<std::int64_t>>()) << name;
    fill(tensor, *entries[name]);
  }
}

/// An input of that name: stored, or filled by rule.
inline at::Tensor input(const Case& given, const std::string& name) {
  if (given.has(name)) return given.tensor(name);
  for (const auto& entry : given.facts.at("inputs")) {
    if (entry.at("name") == name) return filled(entry);
  }
  ADD_FAILURE() << given.sidecar << " has no input " << name;
  return {};
}

}  // namespace fusion::golden
