#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "space/trial.h"
#include "workers/protocol/messages.h"

namespace fusion {

struct WorkerClientOptions {
  std::string url = "http://127.0.0.1:7878";  ///< http:// or ws://, host and port of the daemon
  protocol::Hello hello;                      ///< name, device, slots, versions; `held` is filled in here
  std::string token;                          ///< sent as `Authorization: Bearer` where not empty
  std::chrono::milliseconds first_delay{200}, longest_delay{15'000};  ///< between attempts to connect; doubles, with jitter
  std::chrono::milliseconds grace{0};    ///< after SIGTERM, how long the running trial may go on before it is given back
  std::chrono::milliseconds farewell{5'000};  ///< at the end, how long to wait for acknowledgements
  bool catch_signals = true;             ///< SIGTERM and SIGINT end the worker in order
};

/// A worker's end of the connection to the daemon.
///
/// The thread that calls `run` trains; a thread of the client's own keeps the connection: it reconnects for ever with back-off, sends
/// heartbeats while training goes on, and keeps every epoch report and result until it is acknowledged, over any number of
/// connections. The two talk by posting. Losing the connection does not stop training: a late result is still welcome.
///
/// How a run ends: SIGTERM or SIGINT: what has not begun is given back at once, the running trial is stopped at its next batch
/// (after `grace`) and given back, 0. Drain: everything held is finished, 0. Refused by the daemon: 2, with its sentence on stderr.
class WorkerClient {
 public:
  /// Trains one trial in the thread of `run`. An exception becomes the outcome `failed` with its text. An outcome of `cancelled`
  /// while the worker is stopping means that the trial was given up for that: it is given back, not reported.
  using Train = std::function<TrialOutcome(const protocol::Pack&, const TrialJob&, std::stop_token,
                                           const std::function<void(const EpochReport&)>& on_epoch)>;

  /// Throws ConfigError for an address that cannot be one.
  WorkerClient(WorkerClientOptions options, Train train);
  ~WorkerClient();

  /// Until the worker is to end; returns the exit status.
  int run();
  /// As SIGTERM does; from any thread.
  void stop(const std::string& reason);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fusion
