#include "search/random_strategy.h"

#include <algorithm>

#include "base/random.h"

namespace fusion {

RandomOptions RandomOptions::read(JsonReader& reader) {
  RandomOptions options;
  options.trials = reader.integer("trials", 1, 100'000'000);
  options.duplicates = reader.choice<Duplicates>("duplicates", options.duplicates);
  return options;
}

RandomStrategy::RandomStrategy(SearchSpace space, const RandomOptions& options, std::uint64_t seed)
    : space_(std::move(space)),
      options_(options),
      seed_(mix_text(seed, "random")),
      total_(options.duplicates == Duplicates::reference
                 ? static_cast<std::uint64_t>(options.trials)
                 : std::min(static_cast<std::uint64_t>(options.trials), space_.count_saturated())) {}

namespace {

/// Equal for equal architectures only.
std::string key_of(const Architecture& architecture) {
  std::string key;
  const auto append = [&key](const auto& value) { key.append(reinterpret_cast<const char*>(&value), sizeof value); };
  for (const FusionStep& step : architecture.steps) {
    append(step.taps.size());
    for (const std::int32_t tap : step.taps) append(tap);
    append(step.op);
    append(step.activation);
  }
  return key;
}

}  // namespace

/// The next proposal, and its key.
std::pair<Architecture, std::string> RandomStrategy::draw() const {
  Rng rng(seed_, static_cast<std::uint64_t>(ledger_.asked()));  // so a proposal depends on its number only
  const bool repeats = options_.duplicates == Duplicates::reference;
  for (int i = 0; i < kRedraws; ++i) {
    Architecture architecture = space_.sample(rng);
    std::string key = key_of(architecture);
    if (repeats || !times_proposed_.contains(key)) return {std::move(architecture), std::move(key)};
  }
  const std::uint64_t count = space_.count_saturated();
  for (std::uint64_t place = rng.below(count);; place = (place + 1) % count) {
    Architecture architecture = space_.at(place);
    std::string key = key_of(architecture);
    if (!times_proposed_.contains(key)) return {std::move(architecture), std::move(key)};
  }
}

std::vector<Proposal> RandomStrategy::ask(std::size_t count) {
  std::vector<Proposal> proposals;
  while (proposals.size() < count && static_cast<std::uint64_t>(ledger_.asked()) < total_) {
    auto [architecture, key] = draw();
    ledger_.ask();
    const int replica = times_proposed_[key]++;
    proposals.push_back({std::move(architecture), nlohmann::json::object(), replica});
  }
  return proposals;
}

bool RandomStrategy::finished() const {
  return static_cast<std::uint64_t>(ledger_.asked()) == total_ && ledger_.none_outstanding();
}

}  // namespace fusion
