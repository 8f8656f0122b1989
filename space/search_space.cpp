#include "space/search_space.h"

#include <algorithm>
#include <boost/multiprecision/cpp_int.hpp>
#include <nlohmann/json.hpp>
#include <set>

#include "base/digest.h"

namespace fusion {

using nlohmann::json;
using boost::multiprecision::cpp_int;

namespace {

cpp_int power(std::size_t base, int exponent) {
  cpp_int result = 1;
  for (int i = 0; i < exponent; ++i) result *= base;
  return result;
}

std::uint64_t saturated(const cpp_int& value) {
  return value > cpp_int(UINT64_MAX) ? UINT64_MAX : static_cast<std::uint64_t>(value);
}

template <typename E>
std::vector<E> read_choices(JsonReader& reader, std::string_view key, const std::vector<E>& fallback) {
  std::vector<std::string> names;
  for (const E value : fallback) names.emplace_back(name_of(value));
  std::vector<E> chosen;
  for (const std::string& name : reader.texts(key, names)) {
    const auto value = enum_from_name<E>(name);
    if (!value) {
      reader.fail(key, "expected some of " + enum_choices<E>() + ", got \"" + name + "\"");
    } else if (std::find(chosen.begin(), chosen.end(), *value) != chosen.end()) {
      reader.fail(key, "\"" + name + "\" stands twice");
    } else {
      chosen.push_back(*value);
    }
  }
  if (chosen.empty()) {
    if (reader.has(key) && reader.value()[std::string(key)] == json::array()) reader.fail(key, "expected at least one");
    return fallback;
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<std::int32_t> all_taps(const ModalitySpec& modality) {
  std::vector<std::int32_t> taps(modality.taps.size());
  for (std::size_t i = 0; i < taps.size(); ++i) taps[i] = static_cast<std::int32_t>(i);
  return taps;
}

/// One entry of space.taps: a list of tap names or indices of one modality.
std::vector<std::int32_t> read_taps(JsonReader& reader, const ModalitySpec& modality) {
  const json* list = reader.raw(modality.name);
  if (list == nullptr) return all_taps(modality);
  if (!list->is_array() || list->empty()) {
    reader.fail(modality.name, "expected a list of tap names or indices, got " + list->dump());
    return all_taps(modality);
  }
  std::set<std::int32_t> taps;
  const auto count = static_cast<std::int64_t>(modality.taps.size());
  for (const json& entry : *list) {
    std::int64_t index = -1;
    if (entry.is_string()) {
      for (std::int64_t i = 0; i < count; ++i) {
        if (modality.taps[static_cast<std::size_t>(i)].name == entry.get_ref<const std::string&>()) index = i;
      }
    } else if (entry.is_number_integer() && entry.get<std::int64_t>() < count) {
      index = entry.get<std::int64_t>();  // negative: as if absent
    }
    if (index < 0) {
      std::string known;
      for (const TapSpec& tap : modality.taps) known += " " + tap.name;
      reader.fail(modality.name, "there is no tap " + entry.dump() + "; there are 0 to " + std::to_string(count - 1) + ":" + known);
    } else if (!taps.insert(static_cast<std::int32_t>(index)).second) {
      reader.fail(modality.name, "the tap " + entry.dump() + " stands twice");
    }
  }
  return taps.empty() ? all_taps(modality) : std::vector<std::int32_t>(taps.begin(), taps.end());
}

}  // namespace

SearchSpace SearchSpace::read(JsonReader& reader, const DatasetSpec& dataset) {
  SearchSpace space;
  JsonReader steps = reader.object("steps");
  space.min_steps_ = static_cast<int>(steps.integer("min", 1, kMaxSteps, 1));
  space.max_steps_ = static_cast<int>(steps.integer("max", 1, kMaxSteps, 4));
  steps.finish();
  if (space.min_steps_ > space.max_steps_) {
    reader.fail("steps", "min " + std::to_string(space.min_steps_) + " is larger than max " + std::to_string(space.max_steps_));
    space.min_steps_ = space.max_steps_;
  }
  space.operations_ = read_choices<FusionOp>(reader, "operations", space.operations_);
  space.activations_ = read_choices<Activation>(reader, "activations", space.activations_);
  JsonReader taps = reader.object("taps");
  for (const ModalitySpec& modality : dataset.modalities) {
    space.modality_names_.push_back(modality.name);
    space.taps_.push_back(read_taps(taps, modality));
  }
  taps.finish();
  reader.finish();
  space.make_choices();
  return space;
}

SearchSpace SearchSpace::whole(const DatasetSpec& dataset, int max_steps, std::vector<Activation> activations) {
  SearchSpace space;
  space.max_steps_ = max_steps;
  space.activations_ = std::move(activations);
  for (const ModalitySpec& modality : dataset.modalities) {
    space.modality_names_.push_back(modality.name);
    space.taps_.push_back(all_taps(modality));
  }
  space.make_choices();
  return space;
}

void SearchSpace::make_choices() {
  std::vector<std::vector<std::int32_t>> taps{{}};
  for (const std::vector<std::int32_t>& allowed : taps_) {
    std::vector<std::vector<std::int32_t>> longer;
    for (const auto& prefix : taps) {
      for (const std::int32_t tap : allowed) {
        longer.push_back(prefix);
        longer.back().push_back(tap);
      }
    }
    taps = std::move(longer);
  }
  choices_.clear();
  for (const auto& chosen : taps) {
    for (const FusionOp op : operations_) {
      for (const Activation activation : activations_) choices_.push_back({chosen, op, activation});
    }
  }
}

void SearchSpace::check(const Architecture& architecture) const {
  const std::string subject = "architecture " + canonical_text(architecture) + ": ";
  const auto steps = static_cast<int>(architecture.steps.size());
  if (steps < min_steps_ || steps > max_steps_) {
    throw SpaceError(subject + "expected " + std::to_string(min_steps_) + " to " + std::to_string(max_steps_) + " steps, got " +
                     std::to_string(steps));
  }
  for (std::size_t i = 0; i < architecture.steps.size(); ++i) {
    const FusionStep& step = architecture.steps[i];
    const std::string where = subject + "step " + std::to_string(i) + ": ";
    if (step.taps.size() != taps_.size()) {
      throw SpaceError(where + "expected " + std::to_string(taps_.size()) + " taps, got " + std::to_string(step.taps.size()));
    }
    for (std::size_t m = 0; m < taps_.size(); ++m) {
      if (!std::binary_search(taps_[m].begin(), taps_[m].end(), step.taps[m])) {
        throw SpaceError(where + "tap " + std::to_string(step.taps[m]) + " of modality \"" + modality_names_[m] +
                         "\" is not in the space, which has " + json(taps_[m]).dump());
      }
    }
    if (std::find(operations_.begin(), operations_.end(), step.op) == operations_.end()) {
      throw SpaceError(where + "operation " + std::string(name_of(step.op)) + " is not in the space");
    }
    if (std::find(activations_.begin(), activations_.end(), step.activation) == activations_.end()) {
      throw SpaceError(where + "activation " + std::string(name_of(step.activation)) + " is not in the space");
    }
  }
}

bool SearchSpace::contains(const Architecture& architecture) const {
  try {
    check(architecture);
    return true;
  } catch (const SpaceError&) {
    return false;
  }
}

std::string SearchSpace::count_of_length(int steps) const {
  return steps < min_steps_ || steps > max_steps_ ? "0" : power(choices_.size(), steps).str();
}

std::string SearchSpace::count() const {
  cpp_int total = 0;
  for (int steps = min_steps_; steps <= max_steps_; ++steps) total += power(choices_.size(), steps);
  return total.str();
}

std::uint64_t SearchSpace::count_saturated() const {
  cpp_int total = 0;
  for (int steps = min_steps_; steps <= max_steps_; ++steps) total += power(choices_.size(), steps);
  return saturated(total);
}

Architecture SearchSpace::at(std::uint64_t index) const {
  const std::uint64_t asked = index;
  for (int steps = min_steps_; steps <= max_steps_; ++steps) {
    const std::uint64_t of_length = saturated(power(choices_.size(), steps));
    if (index >= of_length) {
      index -= of_length;
      continue;
    }
    Architecture architecture;
    architecture.steps.resize(static_cast<std::size_t>(steps));
    for (std::size_t i = architecture.steps.size(); i-- > 0;) {
      architecture.steps[i] = choices_[index % choices_.size()];
      index /= choices_.size();
    }
    return architecture;
  }
  throw SpaceError("search space: index " + std::to_string(asked) + " is past its " + count() + " architectures");
}

std::vector<Architecture> SearchSpace::extensions(const Architecture& prefix) const {
  std::vector<Architecture> longer;
  if (static_cast<int>(prefix.steps.size()) >= max_steps_) return longer;
  for (const FusionStep& step : choices_) {
    longer.push_back(prefix);
    longer.back().steps.push_back(step);
  }
  return longer;
}

Architecture SearchSpace::sample(Rng& rng) const {
  Architecture architecture;
  const auto lengths = static_cast<std::uint64_t>(max_steps_ - min_steps_ + 1);
  const std::size_t steps = static_cast<std::size_t>(min_steps_) + rng.below(lengths);
  for (std::size_t i = 0; i < steps; ++i) architecture.steps.push_back(choices_[rng.below(choices_.size())]);
  return architecture;
}

Architecture SearchSpace::mutate(const Architecture& parent, Rng& rng) const {
  check(parent);
  if (count() == "1") throw SpaceError("search space: it holds nothing but " + canonical_text(parent));
  for (;;) {
    Architecture child = parent;
    const std::uint64_t kind = rng.below(4);
    if (kind == 0 && static_cast<int>(child.steps.size()) < max_steps_) {
      const auto place = static_cast<std::ptrdiff_t>(rng.below(child.steps.size() + 1));
      child.steps.insert(child.steps.begin() + place, choices_[rng.below(choices_.size())]);
    } else if (kind == 1 && static_cast<int>(child.steps.size()) > min_steps_) {
      child.steps.erase(child.steps.begin() + static_cast<std::ptrdiff_t>(rng.below(child.steps.size())));
    } else {
      FusionStep& step = child.steps[rng.below(child.steps.size())];
      const std::uint64_t field = rng.below(taps_.size() + 2);
      if (field < taps_.size()) step.taps[field] = taps_[field][rng.below(taps_[field].size())];
      else if (field == taps_.size()) step.op = operations_[rng.below(operations_.size())];
      else step.activation = activations_[rng.below(activations_.size())];
    }
    if (child != parent) return child;
  }
}

json SearchSpace::to_json() const {
  json taps = json::object(), operations = json::array(), activations = json::array();
  for (std::size_t m = 0; m < taps_.size(); ++m) taps[modality_names_[m]] = taps_[m];
  for (const FusionOp op : operations_) operations.push_back(name_of(op));
  for (const Activation activation : activations_) activations.push_back(name_of(activation));
  return {{"steps", {{"min", min_steps_}, {"max", max_steps_}}}, {"operations", operations}, {"activations", activations}, {"taps", taps}};
}

std::string SearchSpace::digest() const {
  json order = to_json();
  order["order"] = modality_names_;
  return sha256_of(order.dump());
}

}  // namespace fusion
