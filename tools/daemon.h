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

  /// Serves until SIGTERM, SIGINT, or a shutdown asked for over HTTP. Local workers are told to stop and waited for; what they had not finished
  /// is queued again on the next start. A tokens file that changes is read again within a second or two; sessions of workers whose token is gone are closed then. A second SIGTERM or SIGINT ends the process at once, as a crash would: nothing acknowledged is lost. Returns 0, or 1 if the database could not be written (its sentence is logged): nothing
  /// that was acknowledged is lost then.
  int run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fusion
