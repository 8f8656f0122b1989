#pragma once

#include <memory>

#include "tools/daemon_config.h"

namespace fusion {

/// A whole daemon: owns the threads, wires store, studies, dispatcher, server and local workers, and takes them down in order.
class Daemon {
 public:
  /// Opens the database, binds the port, begins to take up the studies (their trials are read while it serves). Throws an Error with a sentence where
  /// any of these fails; nothing is left running then.
  explicit Daemon(DaemonConfig config);
  ~Daemon();

  /// The port taken.
  std::uint16_t port() const;

  /// Serves until SIGTERM, SIGINT, or a shutdown asked for over HTTP, which drains: nothing new is leased, and results of what connected workers
  /// train are awaited for `drain_s`. Then local workers are told to stop (killed after 15 s), requests under way get 5 s, and a search or
  /// query that runs on another 5 s, after which the process ends amid it. What is not back by then is queued again on the next start.
  /// A second SIGTERM or SIGINT ends the process at once, as a crash would: nothing acknowledged is lost in either case.
  ///
  /// SIGHUP opens the log file anew and reads the tokens file again; one that changed is read again within a second or two anyway. Sessions of
  /// workers whose token is gone are closed then. Returns 0, or 1 if the database could not be written (its sentence is logged).
  int run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fusion
