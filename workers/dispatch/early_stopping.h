#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/id.h"
#include "space/early_stopping_options.h"

namespace fusion {

/// Asynchronous successive halving for one study, in its stopping variant (Li et al., "A System for Massively Parallel
/// Hyperparameter Tuning", MLSys 2020; as in Optuna's SuccessiveHalvingPruner and Ray's ASHAScheduler).
///
/// Rungs stand after min_epochs x reduction^k epochs, k = 0, 1, ..., before the last epoch. A trial that reports its epoch at a rung goes
/// on if its dev score after that epoch is among the best max(1, floor(n / reduction)) of the n scores the rung has seen, its own
/// included; equal scores are equally good. What it says is decided when it comes and never taken back: the first to come goes on.
///
/// Differs from the paper: a trial that falls behind is ended at once and never promoted later, so that no trial waits half trained.
///
/// A value: no sockets, no store, no time. A trial counts once per rung, with the score it reported last (a second attempt reports
/// again).
class EarlyStopping {
 public:
  /// No rungs with the policy `none`. `epochs`: of a whole training.
  EarlyStopping(const EarlyStoppingOptions& options, int epochs);

  /// Epochs at which something is decided, ascending.
  const std::vector<int>& rungs() const { return rungs_; }
  /// Notes what a trial reported, as it stands in the store; decides nothing.
  void note(TrialId trial, int epoch, double dev_score);
  /// Notes it and decides: none if the trial goes on, else a sentence that says why it does not.
  std::optional<std::string> report(TrialId trial, int epoch, double dev_score);

 private:
  /// What a rung has seen, split at the places: every score in `best` is at least every score in `rest`.
  struct Rung {
    std::unordered_map<TrialId, double> scores;
    std::multiset<double> best, rest;
  };
  Rung* rung_at(int epoch);
  void put(Rung& rung, TrialId trial, double dev_score) const;

  int reduction_ = 0;
  std::vector<int> rungs_;
  std::map<int, Rung> seen_;  // by epoch
};

}  // namespace fusion
