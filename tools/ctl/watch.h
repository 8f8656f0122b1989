#pragma once

#include <chrono>
#include <cstdint>

#include "tools/ctl/http_client.h"
#include "tools/ctl/terminal.h"

namespace fusion::ctl {

struct WatchOptions {
  bool json = false;                          ///< nothing on stdout but the last answer, at the end
  bool no_color = false;
  std::chrono::milliseconds interval{0};      ///< between two drawings; 0: 1 s on a terminal, 10 s elsewhere
  std::chrono::milliseconds patience{600'000};  ///< how long a daemon that does not answer is waited for
};

/// Follows a study until it ends: on a terminal a block of lines that is redrawn, elsewhere a plain line per interval.
/// Returns 0 if the study completed, 1 if it failed or was cancelled.
///
/// Once the daemon has answered, an outage (a restart, say) is told in one sentence and waited for; it throws DaemonFailure when
/// patience ends. Before the first answer nothing is waited for. Throws Refused for a study that is not there.
int watch_study(const HttpClient& client, std::int64_t study, const WatchOptions& options);

}  // namespace fusion::ctl
