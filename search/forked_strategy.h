#pragma once

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "search/strategy.h"

namespace fusion {

/// A strategy that begins with trials inherited from another study (a fork): what it would propose and what was inherited is not proposed
/// but answered at once, with the score it has. So nothing is trained twice, and everything else is left to the strategy inside.
///
/// A strategy with the options and the seed of the study that was forked retraces that study: whatever was told there is told again, so it
/// stands where that one stood, and goes on with what was proposed there next. One with other options goes its own way; it does so with the
/// knowledge of the inherited scores if it was told to `observe` them first.
///
/// A pure function of the strategy inside, the inherited trials and the ordered history of its own trials. Its ask_index goes on behind the
/// inherited ones: the first proposal has as many as there are.
class ForkedStrategy final : public Strategy {
 public:
  /// `inner` is fresh, or has only observed. `inherited` are completed or failed, each architecture and replica once. `retraces`: all of them
  /// were proposed by a strategy of the same options, so that all will be met.
  ForkedStrategy(std::unique_ptr<Strategy> inner, std::span<const Trial> inherited, bool retraces);

  std::vector<Proposal> ask(std::size_t count) override;
  void tell(const Told& ended) override;
  bool finished() const override { return inner_->finished(); }
  /// Inherited trials included. Unless it retraces, at most: each inherited trial that is met later makes it one less.
  std::optional<std::uint64_t> total() const override;
  void observe(const Architecture& architecture, double score) override { inner_->observe(architecture, score); }
  std::vector<FitRecord> take_fit_records() override { return inner_->take_fit_records(); }
  std::string_view name() const override { return inner_->name(); }

 private:
  struct Answer {
    TrialState state = TrialState::completed;
    double score = 0;
  };
  void answer(std::vector<Told> known);

  const std::unique_ptr<Strategy> inner_;
  const bool retraces_;
  std::map<std::pair<Architecture, int>, Answer> inherited_;  ///< by architecture and replica
  std::int64_t inner_asked_ = 0;
  std::uint64_t answered_ = 0;
  std::vector<std::int64_t> inner_index_;  ///< of each proposal that was passed on
};

}  // namespace fusion
