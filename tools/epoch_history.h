#pragma once

#include <map>
#include <string>

#include "base/id.h"
#include "workers/dispatch/epoch_times.h"

namespace fusion {

/// What the epochs of the retrainings that are not final took so far, as they stand in a database.
std::map<RetrainingId, EpochTimes> epoch_history(const std::string& database);

}  // namespace fusion
