#include "search/forked_strategy.h"

#include "base/error.h"

namespace fusion {

ForkedStrategy::ForkedStrategy(std::unique_ptr<Strategy> inner, std::span<const Trial> inherited, bool retraces)
    : inner_(std::move(inner)), retraces_(retraces) {
  for (const Trial& trial : inherited) {
    inherited_[{trial.architecture, trial.replica}] = {trial.state, trial.score ? trial.score->dev_score : 0};
  }
}

std::vector<Proposal> ForkedStrategy::ask(std::size_t count) {
  std::vector<Proposal> fresh;
  while (fresh.size() < count) {
    std::vector<Proposal> proposals = inner_->ask(count - fresh.size());
    if (proposals.empty()) break;
    std::vector<Told> known;
    for (Proposal& proposal : proposals) {
      const std::int64_t index = inner_asked_++;
      const auto found = inherited_.find({proposal.architecture, proposal.replica});
      if (found != inherited_.end()) {
        known.push_back({index, std::move(proposal.architecture), found->second.state, found->second.score});
      } else {
        inner_index_.push_back(index);
        fresh.push_back(std::move(proposal));
      }
    }
    answer(std::move(known));
  }
  return fresh;
}

/// Not amid a batch of proposals: all of it was asked for by then.
void ForkedStrategy::answer(std::vector<Told> known) {
  for (const Told& told : known) inner_->tell(told);
  answered_ += known.size();
}

void ForkedStrategy::tell(const Told& ended) {
  const std::int64_t place = ended.ask_index - static_cast<std::int64_t>(inherited_.size());
  if (place < 0 || place >= static_cast<std::int64_t>(inner_index_.size())) {
    throw Error("strategy: the end of proposal " + std::to_string(ended.ask_index) + " of a fork was told; " + std::to_string(inherited_.size()) +
                " trials were inherited, " + std::to_string(inner_index_.size()) + " proposed behind them");
  }
  Told told = ended;
  told.ask_index = inner_index_[static_cast<std::size_t>(place)];
  inner_->tell(told);
}

std::optional<std::uint64_t> ForkedStrategy::total() const {
  const auto total = inner_->total();
  if (!total || (retraces_ && !finished())) return total;
  return *total + inherited_.size() - answered_;
}

}  // namespace fusion
