#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/id.h"
#include "space/dataset_spec.h"
#include "space/retraining.h"

namespace fusion {

/// What `Store::create_retraining` is given.
struct NewRetraining {
  StudyId study;  ///< both none where the configuration came with an exported file
  TrialId trial;
  nlohmann::json lineage = nlohmann::json::object();  ///< RetrainingJob::lineage
  Architecture architecture;
  DatasetSpec dataset;
  std::string dataset_path;  ///< the feature manifest, absolute
  RetrainingOptions options;
  std::uint64_t seed = 0;    ///< below 2^53
  int priority = 0;          ///< higher first
  int retries = 2;           ///< attempts that may fail before the retraining is failed
  std::string artifacts;     ///< absolute; the retraining gets a folder of its own below it
};

/// A retraining as the store knows it.
struct RetrainingRecord {
  RetrainingId id;
  StudyId study;
  TrialId trial;
  RetrainingJob job;  ///< `attempt`: begun so far
  RetrainingState state = RetrainingState::queued;
  int priority = 0;
  int failures = 0;  ///< attempts that ended failed or oom; more than `retries`: state failed
  int retries = 0;
  std::optional<double> dev_score;  ///< there if and only if it is completed
  std::string error;                ///< of the last attempt that failed
  UnixMs created = 0, updated = 0;
};

/// What became of an outcome of a retraining.
struct RetrainingFinish {
  bool accepted = false;  ///< false: too late, or unknown retraining or attempt; nothing was changed
  RetrainingState state = RetrainingState::queued;  ///< of the retraining now
};

/// What became of a request to pause, resume or cancel.
struct RetrainingChange {
  bool known = false;    ///< there is such a retraining
  bool changed = false;  ///< its state is another one now
  RetrainingState state = RetrainingState::queued;  ///< now
};

}  // namespace fusion
