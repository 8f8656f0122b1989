#pragma once

#include <string>

#include "base/clock.h"
#include "store/group_commit.h"
#include "tools/reader_pool.h"
#include "workers/dispatch/dispatcher.h"
#include "workers/dispatch/server.h"

namespace fusion {

/// Where the daemon's metrics come from. Each source counts for itself, on its own thread and without a lock; what is asked here is read at once.
struct MetricsSources {
  const Dispatcher& dispatcher;
  const StoreFigures& store;
  const ReaderFigures& readers;
  ServerCounts server;
  std::string database;   ///< its path
  UnixMs started = 0;
  bool ready = false;
};

/// `GET /metrics`: every metric of the daemon, as docs/operations.md explains them. On the I/O thread; nothing waits for disk or database.
std::string metrics_text(const MetricsSources& sources);

}  // namespace fusion
