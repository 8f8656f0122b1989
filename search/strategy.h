#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_reader.h"
#include "space/architecture.h"
#include "space/search_space.h"
#include "space/trial.h"

namespace fusion {

/// What a strategy wants trained. `facts` are for people (iteration, level, temperature, prediction), stored with the trial.
struct Proposal {
  Architecture architecture;
  nlohmann::json facts = nlohmann::json::object();
  /// The same architecture again with another seed; 0 for the first. (The reference trains duplicates; see `duplicates` in the
  /// mfas options. A strategy that does not want them never proposes an architecture twice.)
  int replica = 0;
};

/// A proposal that ended, as told to a strategy.
struct Told {
  std::int64_t ask_index = 0;  ///< which proposal, counted from 0 in the order they were asked
  Architecture architecture;
  TrialState state = TrialState::completed;  ///< completed, failed or cancelled
  double score = 0;                          ///< dev_score where completed
};

/// A surrogate's fit as a strategy reports it, to be stored (table surrogate_fits). Errors are taken *before* training on the
/// new scores: the predictions that chose the trials against the scores they got.
struct FitRecord {
  int fit_index = 0;
  std::string surrogate;
  std::int64_t observations = 0;
  double loss = 0;
  std::optional<double> rank_correlation;  ///< Spearman, predictions against scores of the trials since the last fit
  std::optional<double> mean_abs_error;    ///< likewise
  double seconds = 0;
  nlohmann::json details = nlohmann::json::object();
};

/// Proposes architectures (ask) and learns how they did (tell).
///
/// A strategy is a pure function of its options, the seed and the ordered history of told trials: the n-th proposal is the same
/// whatever the number of workers was and however the calls of `ask` were cut. After a crash the daemon makes the strategy anew,
/// asks for as many proposals as were stored and tells the history again, in the committed order; no state is serialised.
/// Therefore: what is proposed must not depend on *when* ask is called between two tells. Two calls of ask(1) equal one
/// of ask(2); a strategy that needs scores to go on answers with fewer, or none, until it was told.
/// Trials of one step may end in any order: a step's surrogate fit uses them in the order of ask_index, so the order of
/// ends changes nothing either. One thread at a time.
class Strategy {
 public:
  virtual ~Strategy() = default;
  /// A score that was got elsewhere under the same conditions: known before the first ask, and part of what proposals are a function of.
  /// Nothing is asked for it, it is told no more. A strategy that does not learn from scores passes over it.
  virtual void observe(const Architecture& /*architecture*/, double /*score*/) {}
  /// Up to `count` new proposals, in order. Empty means: wait for outstanding trials, unless finished().
  virtual std::vector<Proposal> ask(std::size_t count) = 0;
  /// One trial that reached completed, failed or cancelled; each once. A trial without a score counts as never made, or as the
  /// strategy's header says.
  virtual void tell(const Told& ended) = 0;
  /// Nothing will be proposed any more and everything asked was told.
  virtual bool finished() const = 0;
  /// How many proposals there will be in all, where that is known beforehand: for progress and ETA.
  virtual std::optional<std::uint64_t> total() const = 0;
  /// Fits since the last call of this, for the store.
  virtual std::vector<FitRecord> take_fit_records() { return {}; }
  virtual std::string_view name() const = 0;
};

/// Checks the `strategy` object of a study ({"name": "mfas", ...options}) and makes the strategy. Problems go to the reader;
/// nullptr if there were any. The space must outlive nothing: it is copied.
std::unique_ptr<Strategy> make_strategy(JsonReader& reader, const SearchSpace& space, std::uint64_t seed);

}  // namespace fusion
