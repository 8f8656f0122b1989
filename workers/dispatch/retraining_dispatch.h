#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/asio.h"
#include "base/clock.h"
#include "space/retraining.h"
#include "store/group_commit.h"
#include "workers/dispatch/epoch_times.h"
#include "workers/dispatch/workload.h"
#include "workers/protocol/messages.h"

namespace fusion {

/// A retraining that is not final, as it stands in the store.
struct QueuedRetraining {
  RetrainingJob job;  ///< `attempt`: begun so far
  int priority = 0;   ///< higher first, then the older one
  bool paused = false;
  bool recovered = false;  ///< it was leased when the last daemon ended: its worker may come back with it
  EpochTimes times{};      ///< of the epochs that are done
};

/// The retraining half of the dispatcher: who waits, who trains what until when, and which workers are kept from trials for it.
///
/// A worker does either trials or one retraining. How they share the workers that are there:
///
///   - While a study runs, at most half of the workers retrain (rounded down, but one may always); with no study all may.
///   - The next retraining (priority, then age) takes a worker that is idle. If none is, one gets no more trials and is taken once it has run
///     dry. Of several it is the one for fewest processes, and of these the one with least to train.
///   - A worker is given none that it cannot do: with more processes than it may have, of data that it cannot read now, or whose next epoch takes
///     longer than the worker's wall time lets it (protocol::Condition; what an epoch takes: EpochTimes). Another may be given one that is
///     later in the order meanwhile.
///   - If trials wait and every one of several workers retrains (they began when no study ran), the last in the order is handed back
///     after its epoch and waits again: it loses nothing.
///
/// So neither starves where there are two workers; a single one does all retrainings first.
///
/// Leases, attempts and the order of commits are as for trials (workers/dispatch/dispatcher.h). Lives on the I/O thread; owned by the
/// Dispatcher, which passes on what concerns retrainings.
class RetrainingDispatch {
 public:
  /// What it needs of its owner.
  struct Hooks {
    std::function<void(const std::string& worker, protocol::Message)> send;
    std::function<void(const std::string& worker, const std::string& reason)> close;  ///< its connection
    std::function<WorkerId(const std::string& worker)> connection;  ///< of the worker as it is connected now; none while it is not
    std::function<std::string(const std::string& worker)> device;  ///< "cuda:0"
    std::function<void()> changed;  ///< somebody may be given something now
  };
  struct Options {
    std::chrono::milliseconds lease{60'000}, reconnect_grace{3'000};
  };
  RetrainingDispatch(asio::io_context& io, GroupCommit& store, const Clock& clock, Options options, Hooks hooks);

  // ---- the daemon's side; the store's part comes first
  void submit(QueuedRetraining retraining);
  /// A leased one is handed back after its epoch.
  void pause(RetrainingId id, const std::string& reason);
  void resume(RetrainingId id);
  void cancel(RetrainingId id, const std::string& reason);
  /// What the worker said last of the epoch at hand, with `age_s`; null if nothing, or if it is not being trained.
  nlohmann::json progress(RetrainingId id) const;

  // ---- the dispatcher's side
  /// A worker that may be given something.
  struct Candidate {
    std::string name;
    WorkerId id;
    std::size_t used = 0;  ///< trials that it holds
    int pack = 1;
    std::string device;
    std::optional<int> processes;  ///< most that one may have; none: any number
    const protocol::Condition* condition = nullptr;  ///< what it said of itself; null: nothing is wrong
    double condition_age_s = 0;    ///< since it said so
    bool blocked = false;          ///< it takes nothing at all now
  };
  /// Gives out what waits. `study_runs`: some study may have trials now or later; `trials_wait`: some are ready.
  void assign(std::span<const Candidate> workers, bool study_runs, bool trials_wait);
  /// The worker gets no trials: it retrains, or runs dry for it.
  bool keeps_from_trials(const std::string& worker) const;
  /// What the worker holds; none.
  std::optional<RetrainingId> held_by(const std::string& worker) const;
  /// Who may still do something with an attempt: the worker that it is leased to; "" where nobody has it and its worker may come back for it; none
  /// where it is over, because it has ended or another one was begun.
  std::optional<std::string> holder(protocol::HeldRetraining what) const;
  /// Of one that is not final; nullptr: there is none.
  const RetrainingJob* job(RetrainingId id) const;
  std::vector<Workload::Retraining> waiting_unpaused() const;
  /// A sentence for each that none of all connected workers could be given, were it idle: what it waits for.
  std::map<RetrainingId, std::string> why_waiting(std::span<const Candidate> workers) const;
  /// Something of the worker's is here, or under way at the store.
  bool involves(const std::string& worker) const;
  void tick();
  /// Every one that is being trained is handed back after its epoch: the daemon stops.
  void hand_back_all(const std::string& reason);
  std::size_t leased() const { return leases_.size(); }
  /// Submitted, not final, and with nobody; paused ones too.
  std::size_t waiting() const;

  /// What a worker names: what is leased to it goes on, the first that waits is a candidate for adoption, the rest is put into `refused`.
  std::optional<protocol::HeldRetraining> sort_held(const std::string& worker, std::span<const protocol::HeldRetraining> held,
                                                    std::vector<protocol::HeldRetraining>& refused);
  /// The store's answer for the candidate of `sort_held`. False: the worker must stop it.
  bool adopted(const std::string& worker, protocol::HeldRetraining what, bool yes);
  /// What is leased to the worker and not named is lost: all of it, or (`patient`) only what it has named before or left out twice.
  void lose_unnamed(const std::string& worker, std::span<const protocol::HeldRetraining> named, bool patient, const std::string& why);

  void on(const std::string& worker, const protocol::RetrainingEpochReport& message);
  void on(const std::string& worker, const protocol::RetrainingProgressReport& message);
  void on(const std::string& worker, const protocol::RetrainingResult& message);
  void give_back(const std::string& worker, std::span<const protocol::HeldRetraining> held, const std::string& reason);

 private:
  enum class Place { waiting, granting, leased, ending, adopting };
  struct Entry {
    RetrainingJob job;
    int priority = 0;
    bool paused = false;
    Place place = Place::waiting;
    SteadyTime not_before{};  // stands aside until then
    EpochTimes times{};
  };
  struct Lease {
    protocol::HeldRetraining what;
    SteadyTime until;
    bool named = false;
    int missed = 0;
    bool doomed = false;   // over for the daemon; it only keeps the worker
    bool stopping = false;  // told to hand it back
  };
  struct Said {
    RetrainingProgress progress;
    SteadyTime at;
  };

  template <typename Work, typename Done>
  void commit(Work work, Done done);
  std::vector<RetrainingId> ready() const;
  bool before(RetrainingId a, RetrainingId b) const;
  static bool reads(const Candidate& worker, const Entry& entry);
  static bool has_time(const Candidate& worker, const Entry& entry);
  static bool can_take(const Candidate& worker, const Entry& entry);
  static std::string time_that_is_there(std::span<const Candidate* const> workers, const Entry& entry);
  static std::string what_is_missing(std::span<const Candidate> workers, const Entry& entry);
  void grant(const Candidate& worker, RetrainingId id);
  void granted(const std::string& worker, WorkerId connection, RetrainingId id, StoreResult<std::optional<int>>& attempt);
  void make_room(std::span<const Candidate> workers);
  void hand_back(const std::string& worker, Lease& lease, const std::string& reason);
  void extend(Lease& lease);
  Lease* lease_of(const std::string& worker, protocol::HeldRetraining what);
  const std::string* holder_of(protocol::HeldRetraining what) const;
  std::optional<Lease> release(const std::string& worker, protocol::HeldRetraining what);
  void lose(const std::string& worker, Lease lease, const std::string& why);
  void end_attempt(const std::string& worker, RetrainingOutcome outcome, std::optional<Lease> lease, bool acknowledge);
  void ended(const std::string& worker, const RetrainingOutcome& outcome, const RetrainingFinish& finish);
  void wait_again(RetrainingId id);

  asio::io_context& io_;
  GroupCommit& store_;
  const Clock& clock_;
  Options options_;
  Hooks hooks_;
  std::map<RetrainingId, Entry> entries_;   // submitted and not final
  std::map<std::string, Lease> leases_;     // by worker: one each
  std::map<std::string, int> under_way_;    // by worker: leases and ends that are being committed
  std::set<std::string> dry_;               // workers that run dry
  std::map<RetrainingId, Said> said_;
  SteadyTime retry_at_{};                   // after an error of the store
  std::shared_ptr<RetrainingDispatch*> alive_;
};

}  // namespace fusion
