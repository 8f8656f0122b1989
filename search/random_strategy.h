#pragma once

#include <string>
#include <unordered_map>

#include "search/duplicates.h"
#include "search/proposal_ledger.h"
#include "search/strategy.h"

namespace fusion {

struct RandomOptions {
  std::int64_t trials = 0;  ///< how many to propose
  Duplicates duplicates = Duplicates::distinct;

  /// Reads trials (required) and duplicates.
  static RandomOptions read(JsonReader& reader);
};

/// Random search: a uniform length, then uniform steps (SearchSpace::sample), whatever the scores are. Never waits.
///
/// With `distinct` an architecture that came before is drawn again, at most kRedraws times; then the next unproposed
/// one after a uniform place of the canonical order is taken. The search ends early when it has proposed the whole
/// space.
class RandomStrategy final : public Strategy {
 public:
  RandomStrategy(SearchSpace space, const RandomOptions& options, std::uint64_t seed);

  std::vector<Proposal> ask(std::size_t count) override;
  void tell(const Told& ended) override { ledger_.tell(ended); }
  bool finished() const override;
  std::optional<std::uint64_t> total() const override { return total_; }
  std::string_view name() const override { return "random"; }

  static constexpr int kRedraws = 100;

 private:
  std::pair<Architecture, std::string> draw() const;

  const SearchSpace space_;
  const RandomOptions options_;
  const std::uint64_t seed_;
  const std::uint64_t total_;
  ProposalLedger ledger_;
  std::unordered_map<std::string, int> times_proposed_;  // by key_of: an ordered map of architectures took most of a large study's time
};

}  // namespace fusion
