#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "workers/client/daemon_url.h"
#include "workers/client/pack_session.h"
#include "workers/client/retraining_session.h"
#include "workers/client/wall_time.h"

namespace fusion {

struct WorkerClientOptions {
  DaemonUrl url;
  std::string token;          ///< sent as `Authorization: Bearer` where it is not empty
  std::string ca_file;        ///< for https: what is trusted, PEM; empty: the system's authorities
  std::string name;           ///< unique per process; empty: "<host>-<pid>"
  std::string device = "cpu";
  int pack = 1;               ///< trials in training at once
  int slots = 1;              ///< trials to hold at once, in training or waiting; at least `pack`; twice that hides the way to the daemon and back
  std::string torch_version;  ///< stands with each score
  /// How long trials in training may go on after a request to leave, before they are stopped and given back.
  std::chrono::milliseconds grace{0};
  /// And how long, behind the grace, what a retraining made may go on to the daemon, on a host that shares no folder with it. With a wall time at
  /// most a quarter of its reserve.
  std::chrono::milliseconds send_wait{8'000};
  /// How long leaving may wait for acknowledgements (and for a daemon that is away) once nothing is in training, and then for
  /// the answer to the good-bye.
  std::chrono::milliseconds leave_wait{10'000};
  /// The pause before the n-th try to connect is min(max, min * 2^n), of which a random part up to one half is left out.
  std::chrono::milliseconds backoff_min{200}, backoff_max{15'000};
  /// SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 mean `leave`, whoever sends them; another one after `signal_pause` ends the grace. (Batch
  /// systems send some of them twice for one thing.) A second SIGINT ends the process at once.
  bool handle_signals = true;
  std::chrono::milliseconds signal_pause{2'000};
  std::string job, node;      ///< what the batch system says (workers/client/batch_job.h); may be empty
  std::optional<int> processes;  ///< most that a retraining may have here; 0: it does not retrain; none: any number
  WallTime::Options wall;     ///< how long this worker may live
  /// What is said and heard is written there (workers/client/journal.h); empty: nowhere. A journal that cannot be written ends the worker.
  std::filesystem::path journal;
};

/// Why a worker ended in order.
enum class WorkerEnd {
  asked,        ///< by a signal, or by `leave`
  drained,      ///< by the daemon
  time_over,    ///< its wall time is over, or too short for another trial
  device_lost,  ///< its device is gone; a new process may find it again
};

/// A worker's side of the protocol (docs/protocol.md): connects out to the daemon, for ever, takes trials, has `pack` of them trained
/// together (workers/client/pack_session.h), sends each result as soon as there is one, and keeps it until the daemon acknowledged it,
/// over any number of connections.
///
/// A retraining is taken the same way (workers/client/retraining_session.h), never beside trials. Asked to leave, or drained, the worker
/// hands it back after its epoch, or at once when the grace ends.
///
/// With a wall time (`wall`) it says how many trials it can still finish and how long an epoch of a retraining may be, is given no more, hands a
/// retraining back behind the last epoch that ends in time, and leaves in time. Data that cannot be read and
/// a device that is lost fail no trial: what is held goes back (workers/client/worker_condition.h).
///
/// Two threads that talk by posting values. The I/O thread, started by `run`, owns the connection, what is held and every
/// timer, so heartbeats go out while trials train; the thread that calls `run` trains. What waits takes the room of what ended
/// without a word to the daemon. A lost connection stops no training: after the reconnect the daemon says what is not wanted any more.
class WorkerClient {
 public:
  /// Fills empty fields of the options. Throws ConfigError for a `ca_file` that is none, and for a token that would leave this machine
  /// without TLS. Without `retrain` every retraining ends failed, with a sentence.
  WorkerClient(WorkerClientOptions options, TrainFunction train, RetrainFunction retrain = refuse_to_retrain);
  ~WorkerClient();
  WorkerClient(const WorkerClient&) = delete;
  WorkerClient& operator=(const WorkerClient&) = delete;

  /// Works until asked to leave, until the daemon drains its workers, until its wall time ends, or until its device is lost; returns
  /// then. Call it once. Throws ProtocolError if the daemon refuses this worker, ConfigError if it refuses the token or cannot be trusted; with the daemon's sentence.
  WorkerEnd run();

  /// Gives back what has not begun, lets the trials in training end within the grace or gives them back too, waits for
  /// acknowledgements, says good-bye. Any thread, any time, also before `run`.
  void leave(const std::string& reason);

  /// What was read of the devices, for the daemon. One with a problem: what waits goes back, and nothing more is taken until a later call
  /// has none. `size`: how many trials to train at once and to hold from now on, where that follows the memory; what is in training goes on.
  /// Any thread, any time, also before `run`.
  struct Size {
    int pack, slots;
  };
  void report_devices(std::vector<protocol::Device> devices, std::optional<Size> size = {});

  const WorkerClientOptions& options() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fusion
