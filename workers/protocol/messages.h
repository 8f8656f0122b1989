#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/id.h"
#include "space/retraining.h"
#include "space/study.h"
#include "space/trial.h"

/// What daemon and worker say to each other over the WebSocket at /api/v1/worker: one JSON object per text frame,
/// {"type": "hello", ...}; docs/protocol.md shows each. Values only: comparable, copyable.
namespace fusion::protocol {

/// Raised when a message changes meaning. A worker with another version is refused.
inline constexpr int kVersion = 4;

/// A trial by attempt: the unit of holding, giving back and cancelling.
struct Held {
  TrialId trial;
  int attempt = 0;
  auto operator<=>(const Held&) const = default;
};

/// The same of a retraining.
struct HeldRetraining {
  RetrainingId retraining;
  int attempt = 0;
  auto operator<=>(const HeldRetraining&) const = default;
};

// ---- worker to daemon

/// One device of a worker as it stands now. Unknown figures are none.
struct Device {
  std::string name;  ///< "cuda:0", what the worker calls it
  std::string model, id;  ///< "NVIDIA H200", "GPU-5f0c..." or "MIG-..."; empty where nobody could ask
  std::optional<std::int64_t> memory_mb, free_mb;
  std::optional<int> utilisation_percent, temperature_c;
  std::optional<int> others;  ///< processes on it that are not this worker's
  std::string problem;        ///< a sentence: why it cannot be used now; else empty
  bool operator==(const Device&) const = default;
};
/// Features that the worker cannot read now, with the sentence that says why. It is given nothing that needs them.
struct Unreadable {
  std::string dataset_digest, why;
  bool operator==(const Unreadable&) const = default;
};
/// What changes while a worker lives: said in hello, in each heartbeat, and at once when it matters. Durations only, so that the clocks
/// of two hosts need not agree.
struct Condition {
  std::optional<double> time_left_s;  ///< until its wall time ends; none: no limit is known
  std::optional<double> trial_s;      ///< how long a trial takes from its begin to its end here; none: not known yet
  /// Most trials it may hold, in training or waiting, so that all end in the time it has; 0: it takes nothing. None: `slots`.
  std::optional<int> fits;
  std::string problem;  ///< a sentence: why it takes nothing now; else empty
  std::vector<Device> devices;
  std::vector<Unreadable> unreadable;
  /// The longest epoch of a retraining that ends in time here, with its checkpoint; 0: it takes no retraining. None: any.
  std::optional<double> longest_epoch_s;
  std::optional<double> first_epoch_s;  ///< what an epoch counts as of which nothing is known; none: nothing
  std::optional<int> pack, slots;       ///< where these follow the memory that is free: what they are now. None: as in hello
  bool operator==(const Condition&) const = default;
};
inline bool can_read(const Condition& condition, const std::string& dataset_digest) {
  for (const Unreadable& data : condition.unreadable) {
    if (data.dataset_digest == dataset_digest) return false;
  }
  return true;
}

/// First message of a worker. `held`: what it still trains or has finished but not yet seen acknowledged (after a reconnect).
struct Hello {
  int protocol = kVersion;
  std::string name;  ///< stable over reconnects of one process, unique per process
  std::string host;
  std::int64_t pid = 0;
  std::string device;  ///< "cpu", "cuda:0"
  int pack = 1;        ///< trials it trains at once
  int slots = 1;       ///< trials it wants to hold at once, in training or waiting; at least `pack`
  std::string code_version, torch_version;
  std::vector<Held> held;
  std::vector<HeldRetraining> retrainings;  ///< likewise
  std::string job;   ///< of the batch system it runs in: "4711", "4711_3"; else empty
  std::string node;  ///< what the batch system calls the host; else empty
  Condition condition{};
  std::optional<int> processes{};  ///< most that a retraining may have here; 0: it does not retrain. None: any number
  bool operator==(const Hello&) const = default;
};
struct Epoch {
  TrialId trial;
  int attempt = 0;
  EpochReport report;
  bool operator==(const Epoch&) const = default;
};
struct Result {
  TrialOutcome outcome;
  bool operator==(const Result&) const = default;
};
/// Extends the leases of what is named; what the daemon thought leased to this worker and is not named is requeued as lost.
struct Heartbeat {
  std::vector<Held> held;
  std::vector<HeldRetraining> retrainings{};
  Condition condition{};
  bool operator==(const Heartbeat&) const = default;
};
/// Returned untrained, a retraining as far as its checkpoint: requeued as preempted, no retry used.
struct GiveBack {
  std::vector<Held> held;
  std::string reason;
  std::vector<HeldRetraining> retrainings{};
  bool operator==(const GiveBack&) const = default;
};
struct RetrainingEpochReport {
  HeldRetraining what;
  RetrainingEpoch epoch;
  bool operator==(const RetrainingEpochReport&) const = default;
};
/// For those who watch: never stored, never acknowledged. Extends the lease.
struct RetrainingProgressReport {
  HeldRetraining what;
  RetrainingProgress progress;
  bool operator==(const RetrainingProgressReport&) const = default;
};
struct RetrainingResult {
  RetrainingOutcome outcome;
  bool operator==(const RetrainingResult&) const = default;
};
/// The worker will exit; it wants no more packs and will close once its results are acknowledged.
struct Leaving {
  std::string reason;
  bool operator==(const Leaving&) const = default;
};

// ---- daemon to worker

struct Welcome {
  WorkerId worker;
  double lease_s = 0;      ///< a worker silent this long loses its trials
  double heartbeat_s = 0;  ///< how often to send Heartbeat
  std::string code_version;
  bool operator==(const Welcome&) const = default;
};
/// The worker is not wanted (protocol version, bad hello); the connection is closed after it. The worker exits with status 2.
struct Refused {
  std::string error;
  bool operator==(const Refused&) const = default;
};
/// What the trials of a pack share. Trials with equal headers may be trained together, whichever pack brought them.
struct PackHeader {
  StudyId study;
  std::string dataset_path;    ///< the feature manifest, absolute
  std::string dataset_digest;  ///< what the manifest must have; else every trial of the pack fails with a sentence
  TrainingOptions training;
  std::uint64_t order_seed = 0;  ///< of the order of rows: one per study (space/trial.h); below 2^53
  bool operator==(const PackHeader&) const = default;
};
/// A lease: one or many trials of one study.
struct Pack : PackHeader {
  std::vector<TrialJob> trials;
  bool operator==(const Pack&) const = default;
};
/// A lease on one retraining.
struct RetrainingLease {
  RetrainingJob job;
  bool operator==(const RetrainingLease&) const = default;
};
/// The transaction that records it is on disk. `accepted` false: the trial was final already; drop it all the same.
struct Ack {
  std::string what;  ///< "result" or "epoch"
  TrialId trial;
  int attempt = 0;
  int epoch = 0;  ///< for "epoch"
  bool accepted = true;
  bool operator==(const Ack&) const = default;
};
/// The same of a retraining.
struct RetrainingAck {
  std::string what;  ///< "result" or "epoch"
  HeldRetraining held;
  int epoch = 0;  ///< for "epoch"
  bool accepted = true;
  bool operator==(const RetrainingAck&) const = default;
};
/// Stop training these and answer outcome cancelled (which is acknowledged like any result).
struct Cancel {
  std::vector<Held> held;
  std::string reason;
  std::vector<HeldRetraining> retrainings{};
  bool operator==(const Cancel&) const = default;
};
/// End these early: the outcome is pruned, with the score of the epochs that were finished. What is not in training is ignored.
struct Prune {
  std::vector<Held> held;
  std::string reason;
  bool operator==(const Prune&) const = default;
};
/// Stop these once the epoch at hand is in a checkpoint, and give them back.
struct HandBack {
  std::vector<HeldRetraining> retrainings;
  std::string reason;
  bool operator==(const HandBack&) const = default;
};
/// Finish what is held (a retraining is handed back after its epoch), then leave and exit 0. Again over one connection: give it back at once.
struct Drain {
  std::string reason;
  bool operator==(const Drain&) const = default;
};

using Message = std::variant<Hello, Epoch, Result, Heartbeat, GiveBack, Leaving, RetrainingEpochReport, RetrainingProgressReport,
                             RetrainingResult, Welcome, Refused, Pack, Ack, Cancel, Prune, Drain, RetrainingLease, RetrainingAck, HandBack>;

}  // namespace fusion::protocol
