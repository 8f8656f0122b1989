#pragma once

#include <chrono>
#include <map>
#include <string>

#include "base/id.h"
#include "workers/dispatch/epoch_times.h"

namespace fusion {

/// What the epochs of the retrainings that are not final took so far, as they stand in a database: the last ones of each kind of device and
/// phase, as many as EpochTimes keeps. Where they cannot be read within the deadline it warns and knows nothing: a retraining that is handed
/// out without them is measured anew.
std::map<RetrainingId, EpochTimes> epoch_history(const std::string& database, std::chrono::milliseconds deadline = std::chrono::seconds(10));

}  // namespace fusion
