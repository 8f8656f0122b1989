#pragma once

#include <cstdint>

#include "tools/ctl/http_client.h"
#include "tools/ctl/watch.h"

namespace fusion::ctl {

/// Follows a retraining until it ends: on a terminal a bar with rate and ETA over the figures of the last epoch, elsewhere a plain line per
/// epoch and per change of state. Returns 0 if it completed, 1 if it failed or was cancelled. Outages as `watch_study`.
int watch_retraining(const HttpClient& client, std::int64_t retraining, const WatchOptions& options);

}  // namespace fusion::ctl
