#include "space/architecture.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/json_depth.h"

namespace fusion {

using nlohmann::json;

json to_triplets(const Architecture& architecture) {
  json steps = json::array();
  for (const FusionStep& step : architecture.steps) {
    json entry = step.taps;
    entry.push_back(static_cast<int>(step.activation));
    if (step.op != FusionOp::concat_fc) entry.push_back(std::string(name_of(step.op)));
    steps.push_back(std::move(entry));
  }
  return steps;
}

std::string canonical_text(const Architecture& architecture) { return to_triplets(architecture).dump(); }

namespace {

[[noreturn]] void bad_step(std::size_t index, const json& step, const std::string& what) {
  throw SpaceError("architecture: step " + std::to_string(index) + ": " + what + ", got " + step.dump());
}

FusionStep step_from_json(std::size_t index, const json& entry) {
  if (!entry.is_array() || entry.size() < 2) {
    bad_step(index, entry, "expected a list [tap of each modality..., activation]");
  }
  FusionStep step;
  std::size_t numbers = entry.size();
  if (entry.back().is_string()) {
    const auto op = enum_from_name<FusionOp>(entry.back().get_ref<const std::string&>());
    if (!op) bad_step(index, entry, "the operation must be one of " + enum_choices<FusionOp>());
    step.op = *op;
    --numbers;
  }
  if (numbers < 2) bad_step(index, entry, "expected at least one tap and an activation");
  for (std::size_t i = 0; i < numbers; ++i) {
    const json& number = entry[i];
    if (!number.is_number_integer()) bad_step(index, entry, "taps and activation must be integers");
    const auto value = number.get<std::int64_t>();
    const bool too_big = number.is_number_unsigned() && number.get<std::uint64_t>() > 1'000'000;
    if (i + 1 == numbers) {
      if (too_big || value < 0 || value > 3) {
        bad_step(index, entry, "the activation must be 0 (relu), 1 (sigmoid), 2 (leaky_relu) or 3 (identity)");
      }
      step.activation = static_cast<Activation>(value);
    } else {
      if (too_big || value < 0 || value > 1'000'000) bad_step(index, entry, "a tap index must lie in [0, 1000000]");
      step.taps.push_back(static_cast<std::int32_t>(value));
    }
  }
  return step;
}

}  // namespace

Architecture architecture_from_triplets(const json& triplets) {
  if (!triplets.is_array() || triplets.empty() || triplets.size() > kMaxSteps) {
    throw SpaceError("architecture: expected a list of 1 to " + std::to_string(kMaxSteps) +
                     " steps such as [[3,0,0],[1,3,0]], got " + triplets.dump());
  }
  Architecture architecture;
  for (std::size_t i = 0; i < triplets.size(); ++i) {
    architecture.steps.push_back(step_from_json(i, triplets[i]));
    if (architecture.steps[i].taps.size() != architecture.steps[0].taps.size()) {
      bad_step(i, triplets[i], "expected " + std::to_string(architecture.steps[0].taps.size()) + " taps as in step 0");
    }
  }
  return architecture;
}

Architecture architecture_from_text(std::string_view text) {
  const json parsed = json_depth(text) <= kMaxJsonDepth ? json::parse(text, nullptr, false) : json(json::value_t::discarded);
  if (parsed.is_discarded()) {
    throw SpaceError("architecture: expected triplets such as [[3,0,0],[1,3,0]], got \"" + std::string(text.substr(0, 1000)) + "\"");
  }
  return architecture_from_triplets(parsed);
}

}  // namespace fusion
