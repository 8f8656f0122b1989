#pragma once

#include <chrono>
#include <optional>

#include "base/clock.h"

namespace fusion {

/// What a worker can still finish in the time it has.
///
/// A trial is expected to take as long as the slowest of those seen lately, and a quarter more. Before anything was seen it takes one pack,
/// and that only if `first` is left. Packs run one after the other, so what fits is the number of whole packs that do.
///
/// Durations only: the end is kept on this host's steady clock. Values only; one thread.
class WallTime {
 public:
  struct Options {
    std::optional<std::chrono::milliseconds> left{};  ///< at the time of `now`; none: no limit
    std::chrono::milliseconds first{60'000};          ///< that must be left for a first pack, of which nothing is known
    std::chrono::milliseconds reserve{20'000};        ///< kept for leaving: nothing is planned into it
  };
  WallTime(const Options& options, SteadyTime now) : options_(options), began_(now) {}

  /// A trial took so long from its begin to its end, or will by what its epochs took so far.
  void note(std::chrono::duration<double> trial);
  bool limited() const { return options_.left.has_value(); }
  /// Never negative.
  std::optional<std::chrono::duration<double>> left(SteadyTime now) const;
  /// What a trial is expected to take; none as long as nothing was seen.
  std::optional<std::chrono::duration<double>> trial() const { return trial_; }
  /// The longest epoch of a retraining that may be begun, its checkpoint included; 0: none may. None without a limit.
  std::optional<std::chrono::duration<double>> longest_epoch(SteadyTime now) const;
  /// What counts for one of which nothing is known: it may be begun where a first pack may.
  std::optional<std::chrono::duration<double>> first_epoch() const;
  /// Whether there is time for so much (and a quarter more).
  bool enough_for(std::chrono::duration<double> work, SteadyTime now) const;
  /// How many trials may be held, in training or waiting, at most `slots`; none without a limit.
  std::optional<int> fits(SteadyTime now, int pack, int slots) const;
  /// The reserve has begun: nothing goes on now.
  bool over(SteadyTime now) const;
  std::chrono::milliseconds reserve() const;

 private:
  std::optional<std::chrono::duration<double>> usable(SteadyTime now) const;

  Options options_;
  SteadyTime began_;
  std::optional<std::chrono::duration<double>> trial_;
};

}  // namespace fusion
