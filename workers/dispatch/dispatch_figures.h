#pragma once

#include <array>
#include <cstddef>
#include <map>

#include "base/enum_names.h"
#include "base/id.h"
#include "base/metrics.h"
#include "space/trial.h"

namespace fusion {

/// What a dispatcher has done since it began.
struct DispatchFigures {
  DurationHistogram grant;  ///< from when a free slot was found for trials until their pack was handed to the connection: the lease is committed in between
  Counter granted;          ///< attempts begun
  Counter epochs;           ///< epoch reports that were stored
  Counter dropped;          ///< results that came too late, or from somebody who did not hold the trial
  std::array<Counter, EnumNames<Outcome>::kTable.size()> outcomes;      ///< attempts that ended, by outcome, in the order of the enumeration
  std::array<Counter, EnumNames<TrialState>::kTable.size()> ended;  ///< trials that became final by a worker's doing, by state, likewise
};

/// What a dispatcher has now.
struct DispatchLoad {
  struct Trials {
    std::size_t queued = 0, leased = 0;
  };
  std::map<StudyId, Trials> studies;  ///< those that are known: they run, or are paused
  std::size_t leases = 0;             ///< of trials, also those that only fill a worker's slot any more
  std::size_t workers = 0, slots = 0, free_slots = 0;
  std::size_t retrainings_waiting = 0, retrainings_leased = 0;
};

}  // namespace fusion
