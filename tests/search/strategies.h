#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "base/random.h"
#include "search/strategy.h"
#include "tests/space/spaces.h"

namespace fusion::testing {

/// Makes a strategy from its JSON; throws ConfigError with the problems.
inline std::unique_ptr<Strategy> strategy_of(const nlohmann::json& options, const SearchSpace& space,
                                             std::uint64_t seed) {
  JsonProblems problems;
  JsonReader reader(options, "study.json", problems, "/strategy");
  auto strategy = make_strategy(reader, space, seed);
  problems.throw_if_any();
  return strategy;
}

/// The problems of a `strategy` object, a line each; empty if it is good.
inline std::string problems_of(const nlohmann::json& options, const SearchSpace& space) {
  JsonProblems problems;
  JsonReader reader(options, "study.json", problems, "/strategy");
  const auto strategy = make_strategy(reader, space, 1);
  EXPECT_EQ(strategy == nullptr, !problems.empty());
  return join_problems(problems.list());
}

/// How a trial ends, by architecture and replica.
using Ending = std::function<Told(const Architecture&, int replica)>;

inline double noise(const Architecture& architecture, int replica) {
  return Rng(mix_text(static_cast<std::uint64_t>(replica), canonical_text(architecture))).uniform();
}

/// Every trial is scored by chance.
inline Told scored_by_chance(const Architecture& architecture, int replica) {
  return {0, architecture, TrialState::completed, noise(architecture, replica)};
}

/// Like scored_by_chance, but one in eight fails and one in eight is cancelled.
inline Told sometimes_failing(const Architecture& architecture, int replica) {
  Told told = scored_by_chance(architecture, replica);
  const double luck = noise(architecture, replica + 1000);
  if (luck < 0.125) {
    told.state = TrialState::failed;
  }
  else if (luck < 0.25)
    told.state = TrialState::cancelled;
  return told;
}

/// One proposal as text, every fact included.
inline std::string line_of(const Proposal& proposal) {
  return canonical_text(proposal.architecture) + " " + std::to_string(proposal.replica) + " " + proposal.facts.dump();
}

/// Drives a strategy as a daemon would, with the proposals and ends it has seen so far.
class Driver {
 public:
  Driver(std::unique_ptr<Strategy> strategy, Ending ending)
      : strategy_(std::move(strategy)), ending_(std::move(ending)) {}

  Strategy& strategy() { return *strategy_; }
  const std::vector<Proposal>& proposals() const { return proposals_; }
  const std::vector<Told>& history() const { return history_; }
  std::size_t outstanding() const { return outstanding_.size(); }
  std::vector<std::string> lines() const {
    std::vector<std::string> lines;
    for (const Proposal& proposal : proposals_) lines.push_back(line_of(proposal));
    return lines;
  }

  std::size_t ask(std::size_t count) {
    const std::vector<Proposal> fresh = strategy_->ask(count);
    EXPECT_LE(fresh.size(), count);
    for (const Proposal& proposal : fresh) {
      outstanding_.push_back(static_cast<std::int64_t>(proposals_.size()));
      proposals_.push_back(proposal);
    }
    return fresh.size();
  }
  /// Ends the outstanding trial at that place of the list.
  void end(std::size_t place) {
    const std::int64_t index = outstanding_.at(place);
    outstanding_.erase(outstanding_.begin() + static_cast<std::ptrdiff_t>(place));
    const Proposal& proposal = proposals_.at(static_cast<std::size_t>(index));
    Told told = ending_(proposal.architecture, proposal.replica);
    told.ask_index = index;
    tell(told);
  }
  void tell(const Told& told) {
    history_.push_back(told);
    strategy_->tell(told);
  }

  /// One trial at a time, to the end.
  Driver& run() {
    while (!strategy_->finished()) {
      if (ask(1) == 0 && outstanding_.empty()) {
        ADD_FAILURE() << "the strategy neither proposes nor finishes";
        break;
      }
      while (!outstanding_.empty()) end(0);
    }
    return *this;
  }
  /// Up to `workers` trials at a time, asked for in pieces of random size and ending in random order; stops when
  /// `enough`.
  Driver& run_shuffled(Rng& rng, std::size_t workers, std::size_t enough = SIZE_MAX) {
    while (!strategy_->finished() && history_.size() < enough) {
      const std::size_t room = workers - outstanding_.size();
      const std::size_t got = room > 0 && rng.below(3) > 0 ? ask(1 + rng.below(room)) : 0;
      const bool idle = got == 0 && outstanding_.empty() && ask(1) == 0;
      if (idle && !strategy_->finished()) {
        ADD_FAILURE() << "the strategy neither proposes nor finishes";
        break;
      }
      if (!outstanding_.empty() && rng.below(2) == 0) end(rng.below(outstanding_.size()));
    }
    return *this;
  }
  /// As after a crash: brings this fresh strategy to where `other` stands, its outstanding trials included.
  Driver& replay(const Driver& other) {
    std::size_t told = 0;
    for (;;) {
      ask(other.proposals_.size() - proposals_.size());
      if (told == other.history_.size()) break;
      const Told& next = other.history_[told++];
      outstanding_.erase(std::remove(outstanding_.begin(), outstanding_.end(), next.ask_index), outstanding_.end());
      tell(next);
    }
    return *this;
  }

 private:
  std::unique_ptr<Strategy> strategy_;
  Ending ending_;
  std::vector<Proposal> proposals_;
  std::vector<std::int64_t> outstanding_;
  std::vector<Told> history_;
};

}  // namespace fusion::testing
