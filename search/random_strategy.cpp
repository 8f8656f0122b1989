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

Architecture RandomStrategy::draw() const {
  Rng rng(seed_, static_cast<std::uint64_t>(ledger_.asked()));  // so a proposal depends on its number only
  if (options_.duplicates == Duplicates::reference) return space_.sample(rng);
  for (int i = 0; i < kRedraws; ++i) {
    Architecture architecture = space_.sample(rng);
    if (!times_proposed_.contains(architecture)) return architecture;
  }
  const std::uint64_t count = space_.count_saturated();
  for (std::uint64_t place = rng.below(count);; place = (place + 1) % count) {
    Architecture architecture = space_.at(place);
    if (!times_proposed_.contains(architecture)) return architecture;
  }
}

std::vector<Proposal> RandomStrategy::ask(std::size_t count) {
  std::vector<Proposal> proposals;
  while (proposals.size() < count && static_cast<std::uint64_t>(ledger_.asked()) < total_) {
    Architecture architecture = draw();
    ledger_.ask();
    const int replica = times_proposed_[architecture]++;
    proposals.push_back({std::move(architecture), nlohmann::json::object(), replica});
  }
  return proposals;
}

bool RandomStrategy::finished() const {
  return static_cast<std::uint64_t>(ledger_.asked()) == total_ && ledger_.none_outstanding();
}

}  // namespace fusion
