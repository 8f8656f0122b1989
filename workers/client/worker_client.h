#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "space/trial.h"
#include "workers/client/daemon_url.h"
#include "workers/protocol/messages.h"

namespace fusion {

struct WorkerClientOptions {
  DaemonUrl url;
  std::string token;          ///< sent as `Authorization: Bearer` where it is not empty
  std::string name;           ///< unique per process; empty: "<host>-<pid>"
  std::string device = "cpu";
  int slots = 1;              ///< trials to hold at once; more than one hides the way to the daemon and back
  std::string torch_version;  ///< stands with each score
  /// How long the trial in training may go on after a request to leave, before it is stopped and given back.
  std::chrono::milliseconds grace{0};
  /// How long leaving may wait for acknowledgements (and for a daemon that is away) once nothing is in training, and then for
  /// the answer to the good-bye.
  std::chrono::milliseconds leave_wait{10'000};
  /// The pause before the n-th try to connect is min(max, min * 2^n), of which a random part up to one half is left out.
  std::chrono::milliseconds backoff_min{200}, backoff_max{15'000};
  /// SIGTERM and SIGINT mean `leave`; a second SIGINT ends the process at once.
  bool handle_signals = true;
};

/// Trains one trial. Called on the thread of `WorkerClient::run`, one at a time. It should look at the token once per batch and
/// answer `cancelled` when it stopped for it; `on_epoch` may be called from that thread. Whatever it throws is a failed trial
/// (std::bad_alloc: one that ran out of memory) with the exception's text.
using TrainFunction = std::function<TrialOutcome(const protocol::Pack& pack, const TrialJob& job, std::stop_token stop,
                                                 const std::function<void(const EpochReport&)>& on_epoch)>;

/// A worker's side of the protocol (docs/protocol.md): connects out to the daemon, for ever, takes packs, has them trained one trial
/// after the other, and keeps every result until the daemon acknowledged it, over any number of connections.
///
/// Two threads that talk by posting values. The I/O thread, started by `run`, owns the connection, what is held and every
/// timer, so heartbeats go out while a trial trains; the thread that calls `run` trains. A lost connection stops no training: after
/// the reconnect the daemon says what is not wanted any more.
class WorkerClient {
 public:
  /// Fills empty fields of the options.
  WorkerClient(WorkerClientOptions options, TrainFunction train);
  ~WorkerClient();
  WorkerClient(const WorkerClient&) = delete;
  WorkerClient& operator=(const WorkerClient&) = delete;

  /// Works until asked to leave, or until the daemon drains its workers; returns then. Call it once.
  /// Throws ProtocolError if the daemon refuses this worker, ConfigError if it refuses the token; with the daemon's sentence.
  void run();

  /// Gives back what has not begun, lets the trial in training end within the grace or gives it back too, waits for
  /// acknowledgements, says good-bye. Any thread, any time, also before `run`.
  void leave(const std::string& reason);

  const WorkerClientOptions& options() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fusion
