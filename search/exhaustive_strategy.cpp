#include "search/exhaustive_strategy.h"

#include <limits>

namespace fusion {

namespace {

/// base^exponent, saturating.
std::uint64_t power(std::uint64_t base, int exponent) {
  std::uint64_t result = 1;
  for (int i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(result, base, &result)) return std::numeric_limits<std::uint64_t>::max();
  }
  return result;
}

std::uint64_t saturating_add(std::uint64_t a, std::uint64_t b) {
  return a + b < a ? std::numeric_limits<std::uint64_t>::max() : a + b;
}

}  // namespace

ExhaustiveOptions ExhaustiveOptions::read(JsonReader& reader, const SearchSpace& space) {
  const auto min_steps =
      static_cast<int>(reader.integer("min_steps", space.min_steps(), space.max_steps(), space.min_steps()));
  const auto max_steps =
      static_cast<int>(reader.integer("max_steps", space.min_steps(), space.max_steps(), space.max_steps()));
  ExhaustiveOptions options;
  if (min_steps > max_steps) {
    reader.fail("min_steps", std::to_string(min_steps) + " is larger than max_steps " + std::to_string(max_steps));
    return options;
  }
  const std::uint64_t choices = space.step_choices().size();
  for (int steps = space.min_steps(); steps < min_steps; ++steps) {
    options.first = saturating_add(options.first, power(choices, steps));
  }
  for (int steps = min_steps; steps <= max_steps; ++steps) {
    options.count = saturating_add(options.count, power(choices, steps));
  }
  if (options.count > kMost) {
    reader.fail("name", "exhaustive would train every network of " + std::to_string(min_steps) + " to " +
                            std::to_string(max_steps) + " steps, which are more than " + std::to_string(kMost) +
                            "; expected fewer: lower max_steps, or narrow the space");
  }
  return options;
}

ExhaustiveStrategy::ExhaustiveStrategy(SearchSpace space, const ExhaustiveOptions& options)
    : space_(std::move(space)), options_(options) {}

std::vector<Proposal> ExhaustiveStrategy::ask(std::size_t count) {
  std::vector<Proposal> proposals;
  while (proposals.size() < count && static_cast<std::uint64_t>(ledger_.asked()) < options_.count) {
    proposals.push_back(
        {space_.at(options_.first + static_cast<std::uint64_t>(ledger_.ask())), nlohmann::json::object(), 0});
  }
  return proposals;
}

bool ExhaustiveStrategy::finished() const {
  return static_cast<std::uint64_t>(ledger_.asked()) == options_.count && ledger_.none_outstanding();
}

}  // namespace fusion
