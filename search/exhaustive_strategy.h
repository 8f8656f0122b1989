#pragma once

#include "search/proposal_ledger.h"
#include "search/strategy.h"

namespace fusion {

/// Which places of the space's canonical order to propose.
struct ExhaustiveOptions {
  std::uint64_t first = 0;
  std::uint64_t count = 0;

  static constexpr std::uint64_t kMost = 10'000'000;
  /// Reads min_steps and max_steps (defaults: the space's). More than kMost architectures are a problem.
  static ExhaustiveOptions read(JsonReader& reader, const SearchSpace& space);
};

/// Every architecture of the chosen lengths once, in canonical order. Never waits.
class ExhaustiveStrategy final : public Strategy {
 public:
  ExhaustiveStrategy(SearchSpace space, const ExhaustiveOptions& options);

  std::vector<Proposal> ask(std::size_t count) override;
  void tell(const Told& ended) override { ledger_.tell(ended); }
  bool finished() const override;
  std::optional<std::uint64_t> total() const override { return options_.count; }
  std::string_view name() const override { return "exhaustive"; }

 private:
  const SearchSpace space_;
  const ExhaustiveOptions options_;
  ProposalLedger ledger_;
};

}  // namespace fusion
